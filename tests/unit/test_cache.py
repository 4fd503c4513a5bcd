"""The caches: what is computed again, what is not, and what happens to damaged and unwritable files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.dataset_samples import Recorded, cut_off, never_stop, noise_picture, write_picture
from trainer.config import CaptionSettings, DatasetSettings, ModelSettings
from trainer.data import cache as cache_module
from trainer.data.augment import load_pixels, no_augmentation
from trainer.data.buckets import place
from trainer.data.cache import LatentCache, TextCache, View, latent_key
from trainer.errors import StoppedOnRequest, UserError
from trainer.families import load_family
from trainer.families.base import Conditioning, Family
from trainer.file_states import FileDigests

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family(ModelSettings(), device=CPU, dtype=torch.float32)


class Watched:
    """The real family, which also counts and may fail."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.batches: list[int] = []
        self.captions: list[str] = []
        self.most_pictures = 1000
        self.fingerprint_vae = family.fingerprint_vae
        self.fingerprint_text = family.fingerprint_text
        self.text_dtype, self.text_device = family.text_dtype, family.text_device
        self.change: Callable[[Tensor], Tensor] = lambda latents: latents

    def encode_pixels(self, pixels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        assert generator is None
        if len(pixels) > self.most_pictures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append(len(pixels))
        return self.change(self.family.encode_pixels(pixels))

    def encode_captions(self, captions: list[str], **options: Any) -> Conditioning:
        self.captions += captions
        return self.family.encode_captions(captions, **options)


@pytest.fixture
def watched(family: Family) -> Watched:
    return Watched(family)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return [write_picture(tmp_path / "in" / f"{number}.png", 70, 64, number) for number in range(5)]


def view(path: Path, flip: bool = False, size: tuple[int, int] = (70, 64), resolution: int = 64) -> View:
    placement = place(*size, DatasetSettings(resolution=resolution))
    return View(path, placement, no_augmentation(placement, flip=flip))


def filled(watched: Watched, views: list[View], folder: Path | None, events: Recorded | None = None) -> LatentCache:
    cache = LatentCache(watched, folder, events or Recorded())  # type: ignore[arg-type]
    assert cache.fill(views, never_stop) == {}
    return cache


def test_latents_are_the_vaes_mean(watched: Watched, family: Family, pictures: list[Path], tmp_path: Path) -> None:
    views = [view(path, flip) for path in pictures for flip in (False, True)]
    cache = filled(watched, views, tmp_path / "cache")
    for each in views:
        alone = family.encode_pixels(load_pixels(each.path.read_bytes(), each.placement, each.augmentation)[None])[0]
        found = cache.latents(each)
        assert found.shape == (4, 8, 8) and found.dtype == torch.float32 and found.is_contiguous()
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    assert not torch.equal(cache.latents(views[0]), cache.latents(views[1]))


def test_a_second_run_finds_the_very_same_numbers_on_disk(
    watched: Watched, pictures: list[Path], tmp_path: Path
) -> None:
    views = [view(path) for path in pictures]
    first = filled(watched, views, tmp_path / "cache")
    watched.batches.clear()
    second = filled(watched, views, tmp_path / "cache")
    assert watched.batches == []
    assert all(torch.equal(first.latents(each), second.latents(each)) for each in views)


def test_without_a_folder_nothing_is_written(watched: Watched, pictures: list[Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    filled(watched, [view(pictures[0])], None)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_edited_picture_is_encoded_again_under_the_same_name(
    watched: Watched, pictures: list[Path], tmp_path: Path
) -> None:
    old = filled(watched, [view(pictures[0])], tmp_path / "cache").latents(view(pictures[0]))
    stamp = pictures[0].stat()
    noise_picture(70, 64, seed=99).save(pictures[0])
    os.utime(pictures[0], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # even where the clock does not tell
    watched.batches.clear()
    new = filled(watched, [view(pictures[0])], tmp_path / "cache").latents(view(pictures[0]))
    assert watched.batches == [1] and not torch.allclose(old, new, atol=1e-2)


@pytest.mark.parametrize("known", [False, True], ids=["nothing is known", "its neighbour is missing"])
def test_a_picture_that_changes_while_it_is_read_is_not_kept_under_its_old_name(
    known: bool, watched: Watched, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every later run with the old picture would train on the new one."""
    first, second = map(view, pictures[:2])
    if known:
        filled(watched, [first], tmp_path / "cache")
    real = FileDigests.digest

    def digest(files: FileDigests, path: Path) -> str:
        found = real(files, path)
        if path == first.path:
            noise_picture(70, 64, seed=99).save(path)
        return found

    old = first.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(FileDigests, "digest", digest)
        cache = LatentCache(watched, tmp_path / "cache", Recorded())  # type: ignore[arg-type]
        assert cache.fill([first, second], never_stop) == {first.path: "it was changed meanwhile"}
    first.path.write_bytes(old)
    again = filled(watched, [first, second], tmp_path / "cache")
    fresh = filled(watched, [first, second], None)
    torch.testing.assert_close(again.latents(first), fresh.latents(first), atol=1e-5, rtol=1e-5)


def test_a_renamed_picture_is_not_encoded_again(watched: Watched, pictures: list[Path], tmp_path: Path) -> None:
    filled(watched, [view(pictures[0])], tmp_path / "cache")
    watched.batches.clear()
    renamed = pictures[0].rename(tmp_path / "other.png")
    filled(watched, [view(renamed)], tmp_path / "cache")
    assert watched.batches == []


def test_the_key_holds_everything_that_latents_depend_on(pictures: list[Path]) -> None:
    base = view(pictures[0])
    keys = {latent_key("digest", "vae", base), latent_key("other", "vae", base), latent_key("digest", "other", base)}
    for name in ("width", "height", "scaled_width", "scaled_height"):
        moved = dataclasses.replace(base.placement, **{name: getattr(base.placement, name) + 8})
        keys.add(latent_key("digest", "vae", dataclasses.replace(base, placement=moved)))
    for change in ({"flip": True}, {"crop_left": 1}, {"crop_top": 1}, {"hue_degrees": 0.5}, {"gamma": 1.01}):
        changed = dataclasses.replace(base.augmentation, **change)
        keys.add(latent_key("digest", "vae", dataclasses.replace(base, augmentation=changed)))
    assert len(keys) == 3 + 4 + 5
    assert latent_key("digest", "vae", dataclasses.replace(base, path=Path("elsewhere"))) in keys


def cut(path: Path) -> None:
    cut_off(path)


def zero_the_end(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-64] + bytes(64))  # what a power cut leaves: the length is right, the content is not


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    other = next(each for each in sorted(path.parents[1].rglob("*.safetensors")) if each != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [cut, zero_the_end, empty, swap])
def test_a_damaged_file_is_computed_again(
    watched: Watched, pictures: list[Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    views = [view(path) for path in pictures]
    first = filled(watched, views, tmp_path / "cache")
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == len(views)
    damage(files[2])
    watched.batches.clear()
    second = filled(watched, views, tmp_path / "cache")
    assert watched.batches
    assert all(torch.equal(first.latents(each), second.latents(each)) for each in views)
    watched.batches.clear()
    filled(watched, views, tmp_path / "cache")
    assert watched.batches == []  # mended on disk


def test_what_a_killed_run_left_gives_the_same_bits_as_an_undisturbed_one(
    watched: Watched, pictures: list[Path], tmp_path: Path
) -> None:
    views = [view(path, flip) for path in pictures for flip in (False, True)]
    whole = filled(watched, views, tmp_path / "whole")
    filled(watched, views, tmp_path / "part")
    for number, file in enumerate(sorted((tmp_path / "part").rglob("*.safetensors"))):
        if number % 3:
            file.unlink()
    again = filled(watched, views, tmp_path / "part")
    assert all(torch.equal(whole.latents(each), again.latents(each)) for each in views)


def test_unreadable_pictures_are_given_back_by_name(watched: Watched, pictures: list[Path], tmp_path: Path) -> None:
    cut_off(pictures[1])
    pictures[2].unlink()
    cache = LatentCache(watched, tmp_path / "cache", Recorded())  # type: ignore[arg-type]
    failed = cache.fill([view(path) for path in pictures], never_stop)
    assert set(failed) == {pictures[1], pictures[2]}
    assert failed[pictures[2]] == "it is gone"
    assert all(cache.latents(view(path)).shape == (4, 8, 8) for path in (pictures[0], *pictures[3:]))


def test_out_of_memory_halves_the_batch_until_it_fits(watched: Watched, pictures: list[Path], tmp_path: Path) -> None:
    expected = filled(watched, [view(path) for path in pictures], None)
    watched.batches.clear()
    watched.most_pictures = 2
    found = filled(watched, [view(path) for path in pictures], tmp_path / "cache")
    assert max(watched.batches) == 2 and sum(watched.batches) == 5
    for path in pictures:
        torch.testing.assert_close(found.latents(view(path)), expected.latents(view(path)), atol=1e-5, rtol=1e-5)


def test_one_picture_that_does_not_fit_is_told_plainly(watched: Watched, pictures: list[Path]) -> None:
    watched.most_pictures = 0
    with pytest.raises(UserError) as caught:
        filled(watched, [view(pictures[0])], None)
    assert caught.value.problems[0].field == "dataset.resolution" and "64 x 64" in caught.value.problems[0].message


def test_another_error_of_the_model_is_not_taken_for_lack_of_memory(watched: Watched, pictures: list[Path]) -> None:
    def broken(latents: Tensor) -> Tensor:
        raise RuntimeError("shapes do not match")

    watched.change = broken
    with pytest.raises(RuntimeError, match="shapes"):
        filled(watched, [view(pictures[0])], None)


def test_a_vae_that_gives_nan_stops_the_run_with_its_reason(watched: Watched, pictures: list[Path]) -> None:
    watched.change = lambda latents: latents * float("nan")
    with pytest.raises(UserError) as caught:
        filled(watched, [view(pictures[0])], None)
    assert caught.value.problems[0].code == "model.vae_not_finite" and "0.png" in caught.value.problems[0].message


def test_batches_hold_one_bucket_and_stay_within_the_limit(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_ENCODE_PIXELS", 3 * 64 * 64)
    views = [view(write_picture(tmp_path / f"{n}.png", 70, 64, n)) for n in range(7)]
    views += [view(write_picture(tmp_path / f"w{n}.png", 130, 64, n), size=(130, 64), resolution=128) for n in range(2)]
    filled(watched, views, None)
    assert sorted(watched.batches) == [1, 1, 1, 3, 3]


def test_progress_is_told_and_a_stop_is_heeded(
    watched: Watched, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_ENCODE_PICTURES", 1)
    views, events = [view(path) for path in pictures], Recorded()
    filled(watched, views, None, events)
    told = [event for event in events.of("progress") if event["what"] == "encoding pictures"]
    assert [(event["done"], event["total"]) for event in told] == [(n, 5) for n in range(1, 6)]

    asked: Iterator[None] = iter([None, None, None])  # hashing, then two groups

    def check_stop() -> None:
        if next(asked, StoppedOnRequest) is StoppedOnRequest:
            raise StoppedOnRequest("stopped")

    watched.batches.clear()
    with pytest.raises(StoppedOnRequest):
        LatentCache(watched, tmp_path / "cache", Recorded()).fill(views, check_stop)  # type: ignore[arg-type]
    assert len(watched.batches) == 2
    watched.batches.clear()
    filled(watched, views, tmp_path / "cache")
    assert len(watched.batches) == 3  # what was done before the stop is kept


def test_a_folder_that_cannot_be_written_costs_the_cache_only(
    watched: Watched, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    events = Recorded()
    cache = filled(watched, [view(path) for path in pictures], tmp_path / "file" / "cache", events)
    [warning] = events.of("warning")
    assert warning["code"] == "cache.unwritable" and warning["hint"]
    assert cache.latents(view(pictures[4])).shape == (4, 8, 8)


def text_cache(watched: Watched, folder: Path | None, clip_skip: int = 1, **captions: Any) -> TextCache:
    return TextCache(
        watched,  # type: ignore[arg-type]
        CaptionSettings(**captions),
        clip_skip=clip_skip,
        folder=folder,
        events=Recorded(),
    )


def fill(cache: TextCache, captions: list[str]) -> TextCache:
    cache.fill(captions, never_stop)
    return cache


def test_captions_are_encoded_once_and_found_on_disk(watched: Watched, family: Family, tmp_path: Path) -> None:
    asked = ["red circle", "blue square", "red circle", ""]
    cache = fill(text_cache(watched, tmp_path), asked)
    assert sorted(watched.captions) == ["", "blue square", "red circle"]
    first = cache.encode(asked)
    expected = family.encode_captions(asked, max_token_length=75, clip_skip=1, weighted=False)
    torch.testing.assert_close(first.hidden_states, expected.hidden_states, atol=1e-5, rtol=1e-5)
    assert first.hidden_states.shape[0] == 4 and first.extra == {} and not first.hidden_states.requires_grad
    watched.captions.clear()
    again = fill(text_cache(watched, tmp_path), asked)
    assert torch.equal(again.encode(asked[::-1]).hidden_states, first.hidden_states.flip(0))
    assert watched.captions == []


def test_captions_go_through_the_encoder_in_groups_that_do_not_hang_on_the_cache(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_TEXTS_AT_ONCE_ON_CPU", 3)
    asked = [f"caption {number}" for number in range(7)]
    whole = fill(text_cache(watched, tmp_path / "a"), asked).encode(asked).hidden_states
    assert watched.captions == asked
    for lost in sorted((tmp_path / "a").rglob("*.safetensors"))[::2]:
        lost.unlink()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "a").rglob("*.safetensors")}
    again = fill(text_cache(watched, tmp_path / "a"), asked)
    assert torch.equal(again.encode(asked).hidden_states, whole)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "a").rglob("*.safetensors")}
    assert len(files) == 7 and files.items() >= kept.items(), "what was there is not written again"

    watched.captions.clear()
    coming = text_cache(watched, tmp_path / "b")
    coming.expect(asked, most_bytes=3 * whole[0].nbytes)
    rows = [coming.encode([caption]).hidden_states for caption in ("caption 4", "caption 3", "caption 6")]
    assert torch.equal(torch.cat(rows), whole[[4, 3, 6]])
    assert watched.captions == [*asked[3:6], asked[6]], "neighbours that were encoded along are not encoded again"


def test_captions_that_were_not_foreseen_are_encoded_each_time_and_not_kept(
    watched: Watched, family: Family, tmp_path: Path
) -> None:
    cache = fill(text_cache(watched, tmp_path), ["known"])
    files = sorted(tmp_path.rglob("*.safetensors"))
    for asked in (["new", "known", "new"], ["new", "other"]):
        watched.captions.clear()
        found = cache.encode(asked).hidden_states
        expected = family.encode_captions(asked, max_token_length=75, clip_skip=1, weighted=False).hidden_states
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert set(watched.captions) == {"new", "other"} & set(asked) and not found.requires_grad
    assert sorted(tmp_path.rglob("*.safetensors")) == files


def outcome(events: Recorded) -> tuple[str, int, int]:
    last = events.of("progress")[-1]
    return last["what"], last["cached"], last["encoded"]


def test_the_last_progress_tells_what_was_encoded_anew(watched: Watched, pictures: list[Path], tmp_path: Path) -> None:
    events, views = Recorded(), [view(path, flip) for path in pictures for flip in (False, True)]
    filled(watched, views, tmp_path / "cache", events)
    assert outcome(events) == ("0 pictures from the cache, 5 encoded anew", 0, 5)
    noise_picture(70, 64, seed=99).save(pictures[0])
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.safetensors")}
    filled(watched, views, tmp_path / "cache", events)
    assert outcome(events) == ("4 pictures from the cache, 1 encoded anew", 4, 1)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.safetensors")}
    assert len(files) == 12 and all(files[file] == written for file, written in kept.items())

    for number, expected in enumerate(("0 captions from the cache, 2 encoded anew", "1 caption from the cache, 1")):
        cache = TextCache(watched, CaptionSettings(), clip_skip=1, folder=tmp_path / "text", events=events)  # type: ignore[arg-type]
        cache.fill(["same", f"changed {number}"], never_stop)
        assert outcome(events)[0].startswith(expected)


def test_a_stop_between_captions_is_heeded(watched: Watched, tmp_path: Path) -> None:
    def stop_after_two() -> None:
        if len(watched.captions) == 2:
            raise StoppedOnRequest("stopped")

    with pytest.raises(StoppedOnRequest):
        text_cache(watched, tmp_path).fill(["a", "b", "c"], stop_after_two)
    watched.captions.clear()
    fill(text_cache(watched, tmp_path), ["a", "b", "c"])
    assert watched.captions == ["c"]


@pytest.mark.parametrize(
    "change", [{"clip_skip": 2}, {"max_token_length": 150}, {"weighted": True}], ids=lambda change: next(iter(change))
)
def test_other_settings_or_another_caption_are_encoded_anew(
    watched: Watched, tmp_path: Path, change: dict[str, Any]
) -> None:
    fill(text_cache(watched, tmp_path), ["red circle"])
    watched.captions.clear()
    fill(text_cache(watched, tmp_path, **change), ["red circle"])
    assert watched.captions == ["red circle"]
    watched.captions.clear()
    fill(text_cache(watched, tmp_path), ["red  circle"])
    assert watched.captions == ["red  circle"]
    watched.captions.clear()
    watched.fingerprint_text = "another model"
    fill(text_cache(watched, tmp_path), ["red circle"])
    assert watched.captions == ["red circle"]


def test_extra_conditioning_is_kept_by_name(watched: Watched, tmp_path: Path) -> None:
    plain = watched.family.encode_captions

    def with_pooled(captions: list[str], **options: Any) -> Conditioning:
        states = plain(captions, **options).hidden_states
        return Conditioning(states, {"text_embeds": states.mean(1)})

    watched.encode_captions = with_pooled  # type: ignore[method-assign]
    found = fill(text_cache(watched, tmp_path), ["a", "b"]).encode(["b", "a", "b", "c"])
    torch.testing.assert_close(found.extra["text_embeds"], found.hidden_states.mean(1))
