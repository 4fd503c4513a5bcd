"""Buckets against a table worked out by hand, and against an independent and slower way to find them."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction
from typing import Any

import pytest

from trainer.config import BucketSettings, DatasetSettings
from trainer.data.buckets import Placement, bucket_sizes, place, resolutions


def settings(resolution: Any = 512, **buckets: Any) -> DatasetSettings:
    return DatasetSettings(resolution=resolution, buckets=BucketSettings(**buckets))


# Bucket, scaled size, crop: worked out on paper from the rules in sd-scripts' documentation.
ENLARGING = {
    (512, 512): ((512, 512), (512, 512), (0, 0)),
    (1000, 600): ((640, 384), (640, 384), (0, 0)),  # 1.667 = 640 / 384 exactly
    (300, 200): ((640, 384), (640, 427), (0, 21)),  # 1.5: 0.167 from 640 x 384, 0.214 from 576 x 448
    (4000, 3000): ((576, 448), (597, 448), (10, 0)),  # 1.333: nearest is 1.286; 597.33 rounds down
    (100, 50): ((704, 320), (704, 352), (0, 16)),  # 2: nearest is 2.2, then 1.667
    (64, 64): ((512, 512), (512, 512), (0, 0)),
    (1024, 256): ((1024, 256), (1024, 256), (0, 0)),
    (256, 1024): ((256, 1024), (256, 1024), (0, 0)),
    (320, 768): ((320, 768), (320, 768), (0, 0)),
    (1025, 1024): ((512, 512), (513, 512), (0, 0)),  # 512.5 rounds up, not to the even neighbour
    (3000, 100): ((1024, 256), (7680, 256), (3328, 0)),  # wider than any bucket
}
KEEPING = {
    (512, 512): ((512, 512), (512, 512), (0, 0)),
    (500, 500): ((448, 448), (500, 500), (26, 26)),  # below the area: keeps its size
    (300, 200): ((256, 192), (300, 200), (22, 4)),
    (100, 50): ((64, 64), (128, 64), (32, 0)),  # 50 is less than one step: brought up to it
    (1000, 600): ((640, 384), (640, 384), (0, 0)),  # 661.0 x 396.6: 640 x 384 has the aspect exactly
    (4000, 3000): ((512, 384), (512, 384), (0, 0)),  # 591.2 x 443.4: 576 x 384 is worse than 512 x 384
    (1024, 1024): ((512, 512), (512, 512), (0, 0)),
    (1023, 1024): ((512, 512), (512, 512), (0, 0)),  # 511.7 rounds to 512 before it is floored; 511.5 rounds up
    (1025, 1024): ((512, 512), (513, 512), (0, 0)),
    (1000, 1400): ((384, 512), (384, 538), (0, 13)),  # 432.7 x 605.8: 384 / 512 is nearer to 0.714 than 384 / 576
    (64, 4000): ((64, 3968), (64, 4000), (0, 16)),
}


@pytest.mark.parametrize(("size", "expected"), ENLARGING.items())
def test_table_with_enlarging(size: tuple[int, int], expected: Any) -> None:
    assert_placed(place(*size, settings(upscale=True)), expected)


@pytest.mark.parametrize(("size", "expected"), KEEPING.items())
def test_table_without_enlarging(size: tuple[int, int], expected: Any) -> None:
    assert_placed(place(*size, settings(upscale=False)), expected)


def assert_placed(placement: Placement, expected: Any) -> None:
    bucket, scaled, crop = expected
    assert (placement.width, placement.height) == bucket
    assert (placement.scaled_width, placement.scaled_height) == scaled
    assert (placement.crop_left, placement.crop_top) == crop


def test_sizes_of_the_usual_resolution() -> None:
    sizes = bucket_sizes((512, 512), BucketSettings())
    assert sizes == sorted(sizes)
    wide = [(512, 512), (576, 448), (640, 384), (704, 320), (768, 320), (832, 256), (896, 256), (960, 256), (1024, 256)]
    assert set(sizes) == set(wide) | {(height, width) for width, height in wide}


@pytest.mark.parametrize("resolution", [(512, 512), (768, 512), (1024, 1024), (128, 128), (640, 360), (200, 1000)])
@pytest.mark.parametrize("step", [8, 32, 64, 96, 256])
@pytest.mark.parametrize("limits", [(256, 1024), (100, 1000), (512, 512), (64, 2048)])
def test_sizes_are_those_of_a_search_over_all(resolution: tuple[int, int], step: int, limits: tuple[int, int]) -> None:
    """Every grid size whose longer way is maximal for its shorter one, found by trying them all."""
    area, step = math.prod(resolution), min(step, *resolution)
    low = max(step, min(limits[0], *resolution) // step * step)
    high = max(math.ceil(limits[1] / step), math.ceil(max(resolution) / step)) * step
    sides = range(low, high + 1, step)
    fitting = {(w, h) for w, h in itertools.product(sides, sides) if w * h <= area}
    expected = {(w, h) for w, h in fitting if not any((w, more) in fitting for more in range(h + step, high + 1, step))}
    expected |= {(h, w) for w, h in expected}
    square = max(side for side in range(step, high + 1, step) if side * side <= area)
    assert set(bucket_sizes(resolution, BucketSettings(min=limits[0] // 8 * 8, max=limits[1] // 8 * 8, step=step))) == (
        expected | {(square, square)}
    )


def test_placement_is_the_nearest_shape_scaled_to_cover() -> None:
    """Exact fractions instead of floats, for random sizes."""
    rng = random.Random(1)
    chosen = settings(upscale=True)
    sizes = bucket_sizes((512, 512), chosen.buckets)
    for _ in range(500):
        width, height = rng.randint(20, 3000), rng.randint(20, 3000)
        found = place(width, height, chosen)
        shape = Fraction(width, height)
        if (width, height) not in sizes:
            best = min(abs(Fraction(w, h) - shape) for w, h in sizes)
            assert abs(Fraction(found.width, found.height) - shape) == best
        scale = max(Fraction(found.width, width), Fraction(found.height, height))
        assert found.scaled_width == math.floor(width * scale + Fraction(1, 2))
        assert found.scaled_height == math.floor(height * scale + Fraction(1, 2))
        assert found.width == found.scaled_width or found.height == found.scaled_height


@pytest.mark.parametrize("upscale", [True, False])
@pytest.mark.parametrize("resolution", [128, 512, [[768, 512]], 1024])
@pytest.mark.parametrize("step", [8, 64, 256])
def test_what_holds_for_every_picture(resolution: Any, step: int, upscale: bool) -> None:
    rng = random.Random(2)
    chosen = settings(resolution, step=step, upscale=upscale)
    [area_of] = resolutions(chosen)
    area, effective = math.prod(area_of), min(step, *area_of)
    for _ in range(400):
        width, height = (int(math.exp(rng.uniform(0, 10))) for _ in range(2))
        found = place(width, height, chosen)
        assert found.width % effective == found.height % effective == 0 and min(found.width, found.height) > 0
        # rounding a side up before flooring it may overshoot by half a pixel of that side
        assert found.width * found.height <= area * (1 + 1.1 / min(found.width, found.height))
        assert 0 <= found.crop_left <= found.scaled_width - found.width
        assert 0 <= found.crop_top <= found.scaled_height - found.height
        assert 0 <= found.scaled_width - found.width - 2 * found.crop_left <= 1
        assert 0 <= found.cropped_share < 1
        if not upscale and min(width, height) >= effective:
            assert found.scaled_width <= width + 1 and found.scaled_height <= height + 1


def test_no_bucket_side_is_longer_than_the_area_allows_for_thin_strips() -> None:
    found = place(100_000, 10, settings(upscale=False))
    assert (found.width, found.height) == (4096, 64)


def test_one_size_when_buckets_are_off() -> None:
    off = settings([[640, 360]], enabled=False)
    assert bucket_sizes((640, 360), off.buckets) == [(640, 360)]
    found = place(1000, 1000, off)
    assert (found.width, found.height, found.scaled_width, found.scaled_height) == (640, 360, 640, 640)
    assert (found.crop_left, found.crop_top) == (0, 140)


def test_smallest_side_follows_a_small_resolution() -> None:
    assert bucket_sizes((128, 128), BucketSettings(min=256)) == [(128, 128)]
    assert min(min(size) for size in bucket_sizes((256, 512), BucketSettings(min=320))) == 256


def test_several_resolutions() -> None:
    assert resolutions(settings([512, 768])) == [(512, 512), (768, 768)]
    assert resolutions(settings([[768, 512], [512, 768]])) == [(768, 512), (512, 768)]
    assert resolutions(settings([512, 512])) == [(512, 512)]
    both = settings([512, 768], upscale=True)
    assert [place(900, 900, both, each).width for each in resolutions(both)] == [512, 768]
