"""Sizes and shapes as numbers, worked out by hand; buckets as training chooses them."""

from __future__ import annotations

import pytest

from trainer.config import BucketSettings, DatasetSettings
from trainer.curation.framing import Frame, Framing, frame, framing_problems
from trainer.data.buckets import place

CASES = [
    (Framing(), (300, 200), Frame(300, 200, 300, 200)),
    (Framing("longest", 150), (300, 200), Frame(150, 100, 150, 100)),
    (Framing("longest", 600), (300, 200), Frame(300, 200, 300, 200)),
    (Framing("longest", 600, upscale=True), (300, 200), Frame(600, 400, 600, 400)),
    (Framing("shortest", 100), (300, 200), Frame(150, 100, 150, 100)),
    (Framing("shortest", 100), (333, 200), Frame(167, 100, 167, 100)),
    (Framing("exact", 64, 64, "centre"), (300, 200), Frame(96, 64, 64, 64)),
    (Framing("exact", 64, 128, "centre"), (300, 200), Frame(192, 128, 64, 128)),
    (Framing("exact", 512, 512, "centre"), (300, 200), Frame(300, 200, 200, 200)),
    (Framing("exact", 400, 400, "smart", upscale=True), (300, 200), Frame(600, 400, 400, 400)),
    (Framing("exact", 100, 100, "centre"), (333, 251), Frame(133, 100, 100, 100)),
    (Framing(crop="centre", aspect=(1, 1)), (300, 200), Frame(300, 200, 200, 200)),
    (Framing("longest", 90, crop="centre", aspect=(3, 1)), (300, 200), Frame(90, 60, 90, 30)),
    (Framing("shortest", 50, crop="centre", aspect=(1, 2)), (300, 200), Frame(150, 100, 50, 100)),
    (Framing("longest", 64), (1, 5000), Frame(1, 64, 1, 64)),
]


@pytest.mark.parametrize(("framing", "size", "expected"), CASES)
def test_frames(framing: Framing, size: tuple[int, int], expected: Frame) -> None:
    assert frame(*size, framing) == expected


@pytest.mark.parametrize("size", [(1500, 1000), (700, 2100), (300, 200), (512, 512), (5000, 40)])
@pytest.mark.parametrize("upscale", [False, True])
def test_a_bucket_is_the_one_of_training(size: tuple[int, int], upscale: bool) -> None:
    placed = place(*size, DatasetSettings(resolution=512, buckets=BucketSettings(upscale=upscale)))
    cropped = frame(*size, Framing("bucket", 512, crop="centre", upscale=upscale))
    assert cropped == Frame(placed.scaled_width, placed.scaled_height, placed.width, placed.height)
    assert cropped.centre() == (placed.crop_left, placed.crop_top)
    whole = frame(*size, Framing("bucket", 512, upscale=upscale))
    assert (whole.width, whole.height) == (placed.scaled_width, placed.scaled_height)


@pytest.mark.parametrize(
    ("framing", "codes"),
    [
        (Framing("longest", 0), ["pictures.size"]),
        (Framing("exact", 512, 20_000, "centre"), ["pictures.size"]),
        (Framing("exact", 512, 512), ["pictures.crop"]),
        (Framing(crop="smart"), ["pictures.crop"]),
        (Framing(aspect=(1, 1)), ["pictures.crop"]),
        (Framing(aspect=(0, 1), crop="centre"), ["pictures.aspect"]),
        (Framing("bucket", 512, crop="centre", aspect=(1, 1)), ["pictures.aspect"]),
        (Framing(crop="hand"), []),
        (Framing("bucket", 512), []),
        (Framing("longest", 512, crop="centre", aspect=(2, 3)), []),
    ],
)
def test_what_does_not_go_together(framing: Framing, codes: list[str]) -> None:
    assert [problem.code for problem in framing_problems(framing)] == codes
