"""Masks lie over pictures exactly, whatever is done to those; they are cached, and what is wrong with them is told."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.dataset_samples import Recorded, config_for, cut_off, never_stop, noise_picture, write_picture
from trainer.config import AugmentSettings, Config, ModelSettings
from trainer.data.augment import Augmentation, draw_augmentation, load_pixels, no_augmentation
from trainer.data.buckets import Placement
from trainer.data.epoch import Entry, lay_out
from trainer.data.image_files import read_alpha, read_grey
from trainer.data.masks import MaskSource
from trainer.data.training_set import Batch, TrainingSet, prepare_training_set
from trainer.errors import UserError
from trainer.families import load_family
from trainer.families.base import Family

CELL = 8


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32)


def grey_noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return noise_picture(width, height, seed).convert("L")


def one_entry(folder: Path, size: tuple[int, int], placement: Placement | None = None) -> Entry:
    """A picture that looks like its own mask."""
    for name in ("pictures", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        grey_noise(*size).save(folder / name / "a.png")
    [entry] = lay_out(masked_config(folder)).training
    return replace(entry, placement=placement or entry.placement)


def masked_config(folder: Path, **sections: Any) -> Config:
    source = {"path": str(folder / "pictures"), "mask_path": str(folder / "masks")}
    dataset = {"sources": [source], **sections.pop("dataset", {})}
    return config_for(dataset=dataset, loss={"masked": "mask", **sections.pop("loss", {})}, **sections)


def mask_of(entry: Entry, change: Augmentation, kind: Any = "mask") -> torch.Tensor:
    source = MaskSource(kind, CELL, None, Recorded())
    assert source.fill([(entry, change)], never_stop) == {}
    return source.masks([(entry, change)])[0]


PLACEMENTS = [
    Placement(64, 48, 64, 48, 0, 0),  # as it is
    Placement(64, 48, 100, 75, 18, 13),  # shrunk
    Placement(128, 96, 160, 120, 16, 12),  # enlarged
    Placement(64, 96, 150, 112, 43, 8),
]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("flip", [False, True])
def test_a_mask_goes_wherever_its_picture_goes(tmp_path: Path, placement: Placement, flip: bool) -> None:
    """A picture that is its own mask comes out as the same grey values, averaged over each cell."""
    size = (64, 48) if placement.scaled_width == 64 else (133, 100)
    entry = one_entry(tmp_path, size, placement)
    left = (placement.scaled_width - placement.width) // 3
    change = Augmentation(left, (placement.scaled_height - placement.height) // 2, flip, hue_degrees=9.0)
    pixels = load_pixels(entry.picture.path.read_bytes(), placement, replace(change, hue_degrees=0.0))
    shares = ((pixels[0].double().numpy() + 1) / 2).reshape(placement.height // 8, 8, placement.width // 8, 8)
    found = mask_of(entry, change)
    assert found.shape == (1, placement.height // 8, placement.width // 8) and found.dtype == torch.float32
    np.testing.assert_allclose(found[0].double().numpy(), shares.mean((1, 3)), atol=1e-6)


def test_random_crops_take_the_mask_along(tmp_path: Path) -> None:
    placement = Placement(64, 64, 160, 120, 48, 28)
    entry = one_entry(tmp_path, (320, 240), placement)
    for seed in range(5):
        change = draw_augmentation(AugmentSettings(random_crop=True, flip=True), placement, random.Random(seed))
        pixels = load_pixels(entry.picture.path.read_bytes(), placement, change)
        expected = torch.nn.functional.avg_pool2d((pixels[:1] + 1) / 2, 8)
        torch.testing.assert_close(mask_of(entry, change), expected, atol=1e-5, rtol=0)


def test_a_mask_of_another_size_is_scaled_and_of_another_shape_refused(tmp_path: Path) -> None:
    entry = one_entry(tmp_path, (128, 96), Placement(64, 48, 64, 48, 0, 0))
    plain = no_augmentation(entry.placement)
    Image.new("L", (32, 24), 255).save(tmp_path / "masks" / "a.png")
    assert torch.equal(mask_of(entry, plain), torch.ones(1, 6, 8))
    Image.new("L", (48, 24), 255).save(tmp_path / "masks" / "a.png")
    failed = MaskSource("mask", CELL, None, Recorded()).fill([(entry, plain)], never_stop)
    assert "proportion" in failed[entry.picture.path]


def test_alpha_is_a_mask_and_turns_with_the_picture(tmp_path: Path) -> None:
    picture = noise_picture(64, 48).convert("RGBA")
    alpha = Image.new("L", (64, 48), 0)
    alpha.paste(255, (0, 0, 16, 8))  # the top left corner
    picture.putalpha(alpha)
    exif = Image.Exif()
    exif[0x0112] = 3  # shown upside down
    path = tmp_path / "pictures" / "a.png"
    path.parent.mkdir()
    picture.save(path, exif=exif)
    entry = lay_out(config_for(path.parent, dataset={"buckets": {"step": 8}})).training[0]
    found = mask_of(entry, no_augmentation(entry.placement), "alpha")
    expected = torch.zeros(1, 6, 8)
    expected[0, 5, 6:] = 1
    assert torch.equal(found, expected)


def test_grey_and_alpha_of_every_kind_of_file(tmp_path: Path) -> None:
    def read(image: Image.Image, reader: Any, **options: Any) -> Any:
        image.save(tmp_path / "x.png", **options)
        found = reader((tmp_path / "x.png").read_bytes())
        return None if found is None else (found.mode, found.getpixel((3, 3)))

    assert read(Image.fromarray(np.full((8, 8), 0x8000, np.uint16)), read_grey) == ("L", 128)
    assert read(Image.new("1", (8, 8), 1), read_grey) == ("L", 255)
    assert read(Image.new("RGB", (8, 8), "white"), read_grey) == ("L", 255)
    assert read(Image.new("RGB", (8, 8)), read_alpha) is None
    assert read(Image.new("RGBA", (8, 8), (0, 0, 0, 77)), read_alpha) == ("L", 77)
    assert read(Image.new("LA", (8, 8), (0, 77)), read_alpha) == ("L", 77)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 0, 255, 0])
    assert read(palette, read_alpha, transparency=1) == ("L", 0)


def test_masks_are_found_by_path_or_stem_and_missing_ones_told(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/b.png", "sub/c.png", "d.png", "other/d.png"):
        write_picture(tmp_path / "pictures" / name)
    masks = tmp_path / "pictures" / "masks"  # inside the source: these are not pictures to learn from
    for name in ("a.png", "sub/b.png", "c.png", "deep/d.png", "d.webp"):
        write_picture(masks / name)
    source = {"path": str(tmp_path / "pictures"), "mask_path": str(masks)}
    collection = lay_out(config_for(dataset={"sources": [source]}, loss={"masked": "mask"})).collection
    found = {picture.key: picture.mask for picture in collection.pictures}
    assert found == {
        "0/a.jpg": masks / "a.png",
        "0/sub/b.png": masks / "sub" / "b.png",
        "0/sub/c.png": masks / "c.png",
        "0/d.png": masks / "d.webp",
        "0/other/d.png": None,  # two have its stem
    }
    [warning] = collection.warnings
    assert warning.code == "dataset.no_mask" and "1 of 5 pictures" in warning.message and "d.png" in warning.message
    source["mask_path"] = str(tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        lay_out(config_for(dataset={"sources": [source]}, loss={"masked": "mask"}))
    assert caught.value.problems[0].field == "dataset.sources.0.mask_path"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        write_picture(tmp_path / "pictures" / f"{number}.png", 80, 64, number, caption=str(number))
        (tmp_path / "masks").mkdir(exist_ok=True)
        grey_noise(80, 64, 10 + number).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path


def prepared(config: Config, family: Family, folder: Path, events: Recorded | None = None) -> TrainingSet:
    return prepare_training_set(config, family, folder / "cache", events or Recorded(), never_stop)


LIVELY = {"augment": {"flip": True, "random_crop": True}, "buckets": {"enabled": False}, "cache": {"variants": 3}}


@pytest.mark.parametrize("cached", [True, False])
def test_batches_carry_the_masks_of_their_pictures(family: Family, folder: Path, cached: bool) -> None:
    lively = {**LIVELY, "cache": {**LIVELY["cache"], "latents": cached}}
    config = masked_config(folder, dataset=lively, train={"batch_size": 2}, validation={"split": 0.25})
    data = prepared(config, family, folder)
    batches = [data.batch(index) for index in range(16)]
    for batch in [*batches, *data.validation_batches()]:
        assert batch.masks is not None and batch.masks.shape == (len(batch.paths), 1, 8, 8)
        assert batch.masks.dtype == torch.float32
    kinds = {batch.masks.numpy().tobytes() for batch in batches if batch.masks is not None}
    assert len(kinds) > 8  # as many as crops and mirrors
    again = prepared(config, family, folder)
    assert all(same_masks(again.batch(n), batches[n]) for n in reversed(range(16)))
    off = config_for(folder / "pictures", dataset=LIVELY)
    assert prepared(off, family, folder).batch(0).masks is None


def same_masks(one: Batch, other: Batch) -> bool:
    assert one.masks is not None and other.masks is not None
    return torch.equal(one.masks, other.masks)


def test_only_an_edited_mask_is_made_again(family: Family, folder: Path) -> None:
    def told() -> list[str]:
        events = Recorded()
        prepared(masked_config(folder), family, folder, events)
        return [event["what"] for event in events.of("progress") if "cached" in event]

    assert told() == ["0 pictures from the cache, 4 encoded anew", "0 masks from the cache, 4 scaled anew"]
    assert told() == ["4 pictures from the cache, 0 encoded anew", "4 masks from the cache, 0 scaled anew"]
    grey_noise(80, 64, 99).save(folder / "masks" / "2.png")
    assert told() == ["4 pictures from the cache, 0 encoded anew", "3 masks from the cache, 1 scaled anew"]


@pytest.mark.parametrize("cached", [True, False])
def test_a_damaged_mask_leaves_its_picture_out(family: Family, folder: Path, cached: bool) -> None:
    cut_off(folder / "masks" / "1.png")
    events = Recorded()
    data = prepared(masked_config(folder, dataset={"cache": {"latents": cached}}), family, folder, events)
    assert [each.path.name for each in data.skipped] == ["1.png"] and data.pictures == 3
    assert "its mask cannot be used" in events.of("warning")[0]["message"]


def test_a_mask_lost_while_training_without_the_cache(family: Family, folder: Path) -> None:
    data = prepared(masked_config(folder, dataset={**LIVELY, "cache": {"latents": False}}), family, folder)
    shutil.rmtree(folder / "masks")
    with pytest.raises(UserError, match="it is gone"):
        for index in range(8):
            data.batch(index)


def test_masks_that_show_nothing_and_pictures_without_alpha_are_told(family: Family, folder: Path) -> None:
    Image.new("L", (80, 64), 0).save(folder / "masks" / "3.png")
    events = Recorded()
    prepared(masked_config(folder), family, folder, events)
    [warning] = events.of("warning")
    assert warning["code"] == "dataset.empty_mask" and "1 picture with" in warning["message"]
    assert "3.png" in warning["message"]
    events = Recorded()
    prepared(config_for(folder / "pictures", loss={"masked": "alpha"}), family, folder, events)
    [warning] = events.of("warning")
    assert warning["code"] == "dataset.no_alpha" and "4 pictures" in warning["message"]


def test_regularization_pictures_without_masks_count_whole(family: Family, folder: Path) -> None:
    write_picture(folder / "prior" / "p.png", 80, 64, 50)
    config = masked_config(folder, train={"batch_size": 8})
    config.dataset.sources.append(type(config.dataset.sources[0])(path=str(folder / "prior"), is_regularization=True))
    data = prepared(config, family, folder)
    batch = data.batch(0)
    assert batch.masks is not None
    whole = {path.parent.name: bool((mask == 1).all()) for path, mask in zip(batch.paths, batch.masks, strict=True)}
    assert whole == {"pictures": False, "prior": True}
