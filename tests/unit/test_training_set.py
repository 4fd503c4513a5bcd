"""The batches of a run on the demo model's VAE: the same in any order, in any process, after any kill."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.conftest import ROOT
from tests.unit.dataset_samples import Recorded, config_for, cut_off, never_stop, write_picture, write_pictures
from trainer.config import Config, ModelSettings
from trainer.data.augment import load_pixels, no_augmentation
from trainer.data.buckets import place
from trainer.data.training_set import Batch, TrainingSet, prepare_training_set
from trainer.errors import StoppedOnRequest, UserError
from trainer.families import load_family
from trainer.families.base import Family

SIZES = [(64, 64)] * 4 + [(128, 64)] * 3
LIVELY = {"shuffle": True, "tag_dropout": 0.2, "dropout": 0.1, "wildcards": True}


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    write_pictures(folder, SIZES, "{{a|b}}, c, d, number {}".format)
    return folder


def config_of(folder: Path, *, repeats: int = 1, dataset: dict[str, Any] | None = None, **sections: Any) -> Config:
    given = {"sources": [{"path": str(folder), "repeats": repeats}], "resolution": [[128, 64]], **(dataset or {})}
    return config_for(dataset=given, **sections)


def prepared(config: Config, family: Family, folder: Path, events: Recorded | None = None) -> TrainingSet:
    return prepare_training_set(config, family, folder / "cache", events or Recorded(), never_stop)


def fingerprint(batch: Batch) -> str:
    digest = hashlib.sha256(batch.latents.numpy().tobytes())
    digest.update(json.dumps([batch.captions, [path.name for path in batch.paths]]).encode())
    return digest.hexdigest()


def test_shapes_and_contents_of_a_batch(family: Family, pictures: Path, tmp_path: Path) -> None:
    config = config_of(pictures, train={"batch_size": 2})
    data = prepared(config, family, tmp_path)
    assert data.batches_per_epoch == 2 + 2 and data.pictures == 7 and data.skipped == []
    for index in range(8):
        batch = data.batch(index)
        count = len(batch.paths)
        width = 16 if batch.paths[0].stem[1] >= "4" else 8
        assert batch.latents.shape == (count, 4, 8, width) and batch.latents.dtype == torch.float32
        assert batch.loss_weights.tolist() == [1.0] * count and batch.loss_weights.dtype == torch.float32
        for path, caption, latents in zip(batch.paths, batch.captions, batch.latents, strict=True):
            assert caption == path.with_suffix(".txt").read_text()
            placement = place(*SIZES[int(path.stem)], config.dataset)
            alone = family.encode_pixels(load_pixels(path.read_bytes(), placement, no_augmentation(placement))[None])
            torch.testing.assert_close(latents, alone[0], atol=1e-5, rtol=1e-5)


class PixelFamily:
    """Its latents are the pixels themselves."""

    fingerprint_vae = "pixels"
    text_width, text_dtype = 8, torch.float32

    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels


def test_sizes_tell_where_the_crop_lies_in_the_picture_as_it_is_shown(tmp_path: Path) -> None:
    """Red counts the columns and green the rows, so that the first pixel tells where it comes from."""
    width, height = 100, 70
    picture = Image.new("RGB", (width, height))
    picture.putdata([(x, y, 0) for y in range(height) for x in range(width)])
    (tmp_path / "pictures").mkdir()
    picture.save(tmp_path / "pictures" / "0.png")
    dataset = {"resolution": 128, "cache": {"latents": False}, "augment": {"flip": True, "random_crop": True}}
    data = prepared(config_of(tmp_path / "pictures", dataset=dataset), PixelFamily(), tmp_path)  # type: ignore
    seen = set()
    for index in range(40):
        batch = data.batch(index)
        first, second = ((batch.latents[0, 0, 0, :2] + 1) / 2 * 255).round().int().tolist()
        top = int(((batch.latents[0, 1, 0, 0] + 1) / 2 * 255).round())
        mirrored = second < first
        left = width - 1 - first if mirrored else first
        assert batch.sizes.tolist() == [[height, width, top, left, 64, 64]]
        seen.add((mirrored, top, left))
    assert {mirrored for mirrored, _, _ in seen} == {True, False}
    assert len(seen) > 20


def test_every_picture_is_seen_its_repeats_times_an_epoch(family: Family, pictures: Path, tmp_path: Path) -> None:
    data = prepared(config_of(pictures, repeats=3, train={"batch_size": 4}), family, tmp_path)
    for epoch in range(2):
        start = epoch * data.batches_per_epoch
        seen = Counter(path for index in range(data.batches_per_epoch) for path in data.batch(start + index).paths)
        assert len(seen) == 7 and set(seen.values()) == {3}


def random_config(folder: Path, *, cached: bool) -> Config:
    """Everything that chance may touch, switched on."""
    augment = {"flip": True, "color": True, "random_crop": True}
    dataset = {"captions": LIVELY, "augment": augment, "cache": {"latents": cached, "to_disk": False}}
    return config_of(folder, repeats=2, dataset=dataset, train={"batch_size": 3, "seed": 7})


@pytest.mark.parametrize("cached", [True, False])
def test_batches_are_the_same_in_any_order(family: Family, pictures: Path, tmp_path: Path, cached: bool) -> None:
    data = prepared(random_config(pictures, cached=cached), family, tmp_path)
    forwards = [fingerprint(data.batch(index)) for index in range(20)]
    backwards = [fingerprint(data.batch(index)) for index in reversed(range(20))][::-1]
    assert forwards == backwards and len(set(forwards)) == 20


def asked_late(folder: Path, family: Family) -> list[str]:
    """Two batches from the middle of a run, with and without the latent cache."""
    sets = [prepared(random_config(folder, cached=cached), family, folder.parent) for cached in (True, False)]
    return [fingerprint(data.batch(index)) for data in sets for index in (19, 4)]


def test_batches_are_the_same_in_a_new_process(family: Family, pictures: Path) -> None:
    code = (
        "import sys; from tests.unit.test_training_set import *\n"
        "family = load_family(ModelSettings(), device=torch.device('cpu'), dtype=torch.float32)\n"
        "print(json.dumps(asked_late(Path(sys.argv[1]), family)))"
    )
    command = [sys.executable, "-c", code, str(pictures)]
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == asked_late(pictures, family)


def test_another_seed_gives_another_run(family: Family, pictures: Path, tmp_path: Path) -> None:
    runs = []
    for seed in (1, 2):
        dataset = {"captions": LIVELY, "augment": {"flip": True}}
        data = prepared(config_of(pictures, dataset=dataset, train={"seed": seed}), family, tmp_path)
        runs.append([fingerprint(data.batch(index)) for index in range(7)])
    assert not set(runs[0]) & set(runs[1])


def test_flips_come_half_of_the_time_and_are_mirrored(family: Family, tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", [(64, 64)])
    config = config_of(tmp_path / "one", repeats=200, dataset={"augment": {"flip": True}})
    data = prepared(config, family, tmp_path)
    kinds = Counter(fingerprint(data.batch(index)) for index in range(200))
    assert len(kinds) == 2 and min(kinds.values()) > 75


def test_without_the_cache_the_latents_are_the_same(family: Family, pictures: Path, tmp_path: Path) -> None:
    both = [
        prepared(config_of(pictures, dataset={"cache": {"latents": cached}}, train={"batch_size": 2}), family, tmp_path)
        for cached in (True, False)
    ]
    for index in range(4):
        first, second = (data.batch(index) for data in both)
        assert first.paths == second.paths and first.captions == second.captions
        torch.testing.assert_close(first.latents, second.latents, atol=1e-5, rtol=1e-5)


def test_an_edited_caption_counts_at_once(family: Family, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "one" / "a.png", caption="before")
    config = config_of(tmp_path / "one")
    assert prepared(config, family, tmp_path).batch(0).captions == ["before"]
    path.with_suffix(".txt").write_text("after")
    assert prepared(config, family, tmp_path).batch(0).captions == ["after"]


@pytest.mark.parametrize("cached", [True, False])
def test_a_damaged_picture_among_good_ones_is_named_and_left_out(
    family: Family, pictures: Path, tmp_path: Path, cached: bool
) -> None:
    cut_off(pictures / "01.png")
    damaged = pictures / "05.png"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)  # the header and the end look well
    damaged.write_bytes(data)
    events = Recorded()
    found = prepared(config_of(pictures, dataset={"cache": {"latents": cached}}), family, tmp_path, events)
    assert {each.path.name for each in found.skipped} == {"01.png", "05.png"}
    assert found.pictures == found.batches_per_epoch == 5
    warnings = [event["message"] for event in events.of("warning")]
    assert len(warnings) == 2 and "01.png" in warnings[0] and "05.png" in warnings[1]
    names = {path.name for index in range(5) for path in found.batch(index).paths}
    assert names == {"00.png", "02.png", "03.png", "04.png", "06.png"}


def test_no_picture_left_is_an_error_that_names_them(family: Family, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "one" / "a.png", 64, 64)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        prepared(config_of(tmp_path / "one"), family, tmp_path)
    assert caught.value.problems[0].code == "dataset.no_pictures" and "a.png" in caught.value.problems[0].message


def test_a_picture_lost_while_training_without_the_cache(family: Family, pictures: Path, tmp_path: Path) -> None:
    data = prepared(config_of(pictures, dataset={"cache": {"latents": False}}), family, tmp_path)
    (pictures / "03.png").unlink()
    lost = next(index for index in range(7) if "03" in _paths_of(data, index))
    with pytest.raises(UserError, match="it is gone"):
        data.batch(lost)


def _paths_of(data: TrainingSet, index: int) -> str:
    try:
        return " ".join(path.stem for path in data.batch(index).paths)
    except UserError:
        return "03"


def test_regularization_pictures_are_mixed_in_with_their_weight(family: Family, tmp_path: Path) -> None:
    write_pictures(tmp_path / "own", [(64, 64)] * 4)
    write_pictures(tmp_path / "prior", [(64, 64)] * 3, "prior {}".format)
    sources = [
        {"path": str(tmp_path / "own"), "repeats": 5},
        {"path": str(tmp_path / "prior"), "is_regularization": True},
    ]
    config = config_for(dataset={"sources": sources}, train={"batch_size": 4, "prior_loss_weight": 0.5})
    data = prepared(config, family, tmp_path)
    batches = [data.batch(index) for index in range(data.batches_per_epoch)]
    weights = [(path.parent.name, weight) for batch in batches for path, weight in _weights(batch)]
    assert Counter(weights) == {("own", 1.0): 20, ("prior", 0.5): 20}
    mixed = [batch for batch in batches if len(set(batch.loss_weights.tolist())) == 2]
    assert len(mixed) >= 5


def _weights(batch: Batch) -> list[tuple[Path, float]]:
    return list(zip(batch.paths, batch.loss_weights.tolist(), strict=True))


def test_validation_batches_are_fixed_and_apart(family: Family, pictures: Path, tmp_path: Path) -> None:
    dataset = {"captions": {"shuffle": True, "dropout": 1.0}, "augment": {"flip": True}}
    config = config_of(pictures, dataset=dataset, train={"batch_size": 2}, validation={"split": 0.5})
    data = prepared(config, family, tmp_path)
    held = data.validation_batches()
    names = [path.name for batch in held for path in batch.paths]
    assert len(names) == len(set(names)) == 4
    assert not set(names) & {path.name for index in range(20) for path in data.batch(index).paths}
    assert [fingerprint(batch) for batch in held] == [fingerprint(batch) for batch in data.validation_batches()]
    assert all(caption for batch in held for caption in batch.captions)
    assert all(caption == "" for caption in data.batch(0).captions)
    assert all(len({latent.shape for latent in batch.latents}) == 1 and len(batch.paths) <= 2 for batch in held)
    again = prepared(config, family, tmp_path)
    assert [fingerprint(batch) for batch in again.validation_batches()] == [fingerprint(batch) for batch in held]
    assert prepared(config_of(pictures), family, tmp_path).validation_batches() == []


@pytest.mark.parametrize("cached", [True, False])
def test_a_stop_while_preparing_is_heeded(family: Family, pictures: Path, tmp_path: Path, cached: bool) -> None:
    def stop() -> None:
        raise StoppedOnRequest("stopped")

    config = config_of(pictures, dataset={"cache": {"latents": cached}})
    with pytest.raises(StoppedOnRequest):
        prepare_training_set(config, family, tmp_path / "cache", Recorded(), stop)


def test_captions_know_the_epoch_and_the_step(family: Family, tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", [(64, 64)] * 2, "k, a, b, c, d {}".format)
    captions = {"keep_tokens": 1, "token_warmup_step": 0.5, "dropout_every_n_epochs": 3}
    config = config_of(
        tmp_path / "one",
        dataset={"captions": captions},
        train={"max_steps": 8, "gradient_accumulation_steps": 2},
    )
    data = prepared(config, family, tmp_path)
    lengths = [[len(caption.split(", ")) if caption else 0 for caption in data.batch(n).captions] for n in range(16)]
    # a step is two batches is an epoch; four steps of warm-up: 1, 1 + 3/4, 1 + 6/4 ... tags beside the kept one
    assert lengths == [[count] for count in (2, 2, 2, 2, 0, 0, 4, 4, 5, 5, 0, 0, 5, 5, 5, 5)]


def test_known_captions_are_all_that_come_and_few(family: Family, tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", [(64, 64)] * 3, "{{red|blue}} thing {}".format)
    (tmp_path / "one" / "02.txt").write_text("{a|b}" * 10)  # 1024 forms
    settings = {"wildcards": True, "dropout": 0.2, "prefix": "p"}
    config = config_of(tmp_path / "one", dataset={"captions": settings}, validation={"split": 0.34})
    data = prepared(config, family, tmp_path)
    known = data.text_plan.known
    batches = [data.batch(index) for index in range(60)] + data.validation_batches()
    seen = {caption for batch in batches for caption in batch.captions if "thing" in caption or not caption}
    assert seen == known and known == {f"p {color} thing {n}" for color in ("red", "blue") for n in (0, 1)} | {""}
    shuffled = config_of(tmp_path / "one", dataset={"captions": {"shuffle": True}}, validation={"split": 0.34})
    held = prepared(shuffled, family, tmp_path).text_plan.known
    assert len(held) == 1  # only what is held back is known


def test_a_folder_may_have_settings_of_its_own(family: Family, tmp_path: Path) -> None:
    for name in ("plain", "own"):
        write_pictures(tmp_path / name, [(64, 64)] * 2, "a, b, c, {}".format)
    own = {"captions": {"prefix": "photo,", "shuffle": True, "keep_tokens": 1}, "augment": {"flip": True}}
    sources = [
        {"path": str(tmp_path / "plain"), "repeats": 30, "captions": {"dropout": 0}},
        {"path": str(tmp_path / "own"), "repeats": 30, **own},
    ]
    config = config_for(dataset={"sources": sources, "captions": {"dropout": 0.5, "suffix": "end"}})
    data = prepared(config, family, tmp_path)
    batches = [data.batch(index) for index in range(data.batches_per_epoch)]
    seen = {name: [b for b in batches if b.paths[0].parent.name == name] for name in ("plain", "own")}
    assert {batch.captions[0] for batch in seen["plain"]} == {f"a, b, c, {n} end" for n in (0, 1)}
    texts = Counter(batch.captions[0] for batch in seen["own"])
    assert 15 < texts.pop("") < 45  # the dataset's dropout
    assert all(text.startswith("photo, ") and sorted(text.replace(" end", "")[7:].split(", ")) for text in texts)
    assert len(texts) > 10
    kinds = {name: {batch.latents.numpy().tobytes() for batch in seen[name]} for name in seen}
    assert len(kinds["plain"]) == 2 and len(kinds["own"]) == 4  # only these are mirrored
    assert data.text_plan.known == {f"a, b, c, {n} end" for n in (0, 1)}


def test_two_epochs_of_uneven_buckets_show_every_picture_as_often_as_its_repeats(
    family: Family, tmp_path: Path
) -> None:
    """Seven buckets, three folders with their own repeats, two resolutions, a batch size that divides nothing."""
    shapes = [(64, 64), (128, 64), (64, 128), (192, 64), (64, 192), (128, 128), (192, 128)]
    repeats = {"1_a": 1, "3_b": 3, "2_c": 2}
    for number, name in enumerate(repeats):
        write_pictures(tmp_path / "in" / name, [s for n, s in enumerate(shapes) for _ in range(1 + (n + number) % 4)])
    dataset = {
        "sources": [{"path": str(tmp_path / "in"), "repeats": 2}],
        "resolution": [[192, 128], [64, 64]],
        "buckets": {"min": 64, "step": 64, "max": 256},
    }
    config = config_for(dataset=dataset, train={"batch_size": 5})
    data = prepared(config, family, tmp_path)
    sizes = set()
    for epoch in range(2):
        batches = [data.batch(epoch * data.batches_per_epoch + n) for n in range(data.batches_per_epoch)]
        seen = Counter(path for batch in batches for path in batch.paths)
        expected = {path: 2 * 2 * repeats[path.parent.name] for path in (tmp_path / "in").rglob("*.png")}
        assert seen == expected
        assert all(1 <= len(batch.paths) <= 5 for batch in batches)
        sizes |= {tuple(batch.latents.shape[2:]) for batch in batches}
    assert len(sizes) >= 7 and data.skipped == []


def test_cached_variants_differ_and_are_chosen_anew_each_epoch(family: Family, tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", [(96, 64)] * 2)
    dataset = {"resolution": 64, "augment": {"random_crop": True, "color": True}, "cache": {"variants": 5}}
    dataset["buckets"] = {"enabled": False}

    def seen(seed: int, **changes: Any) -> list[list[str]]:
        """The latents of each picture, epoch by epoch."""
        config = config_of(tmp_path / "one", dataset={**dataset, **changes}, train={"seed": seed})
        data = prepared(config, family, tmp_path)
        found: dict[str, list[str]] = {"00": [], "01": []}
        for index in range(60):
            batch = data.batch(index)
            found[batch.paths[0].stem].append(hashlib.sha256(batch.latents.numpy().tobytes()).hexdigest())
        return list(found.values())

    first = seen(1)
    assert all(len(set(latents)) == 5 for latents in first) and not set(first[0]) & set(first[1])
    assert first == seen(1)
    other = seen(2)
    assert other != first and [set(latents) for latents in other] == [set(latents) for latents in first]
    more = seen(1, cache={"variants": 9})
    assert all(len(set(latents)) > 5 for latents in more)
    alone = seen(1, augment={"random_crop": False})
    assert all(len(set(latents)) == 1 for latents in alone)


def test_variants_are_encoded_once_and_found_again(family: Family, tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", [(96, 64)] * 2)
    dataset = {"resolution": 64, "augment": {"random_crop": True, "flip": True}, "buckets": {"enabled": False}}
    for cached, variants in ((0, 3), (2, 3), (0, 4)):
        events = Recorded()
        config = config_of(tmp_path / "one", dataset={**dataset, "cache": {"variants": variants}})
        prepared(config, family, tmp_path, events)
        assert events.of("progress")[-1]["cached"] == cached
    assert len(list((tmp_path / "cache" / "latents").rglob("*.safetensors"))) == 2 * 4 * 2
