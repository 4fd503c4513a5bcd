"""From picture files to pixels: scaling, cropping and the random changes."""

from __future__ import annotations

import colorsys
import io
import math
import random
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests.unit.dataset_samples import noise_picture
from trainer.config import AugmentSettings
from trainer.data.augment import (
    Augmentation,
    cached_augmentations,
    draw_augmentation,
    draw_variant,
    load_pixels,
    no_augmentation,
    pick_cached,
)
from trainer.data.buckets import Placement
from trainer.data.resample import resize


def as_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def area_by_hand(values: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Mean over each target pixel's interval of the first axis, interval by interval, in exact fractions."""
    count = values.shape[0]
    rows = []
    for target in range(length):
        start, end = Fraction(target * count, length), Fraction((target + 1) * count, length)
        row = np.zeros(values.shape[1:])
        for source in range(count):
            covered = min(end, Fraction(source + 1)) - max(start, Fraction(source))
            if covered > 0:
                row += float(covered * length / count) * values[source]
        rows.append(row)
    return np.stack(rows)


@pytest.mark.parametrize("target", [(7, 5), (13, 9), (20, 5), (13, 16), (4, 4), (19, 15), (1, 1)])
def test_shrinking_is_the_exact_mean_over_the_area(target: tuple[int, int]) -> None:
    image = noise_picture(20, 16)
    expected = area_by_hand(np.asarray(image, np.float64), target[1])
    expected = area_by_hand(expected.swapaxes(0, 1), target[0]).swapaxes(0, 1)
    np.testing.assert_allclose(resize(image, *target), expected, atol=2e-4)


def test_enlarging_is_lanczos_and_the_same_size_untouched() -> None:
    image = noise_picture(20, 16)
    np.testing.assert_array_equal(resize(image, 20, 16), np.asarray(image))
    larger = np.asarray(image.resize((30, 24), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(resize(image, 30, 24), larger)
    mixed = np.asarray(image.resize((30, 10), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(resize(image, 30, 10), mixed)


def test_pixels_are_scaled_cropped_and_in_range() -> None:
    image = noise_picture(20, 16)
    placement = Placement(12, 10, 20, 16, 4, 3)
    pixels = load_pixels(as_bytes(image), placement, no_augmentation(placement))
    assert pixels.shape == (3, 10, 12) and pixels.dtype == torch.float32 and pixels.is_contiguous()
    expected = np.asarray(image, np.float64)[3:13, 4:16].transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-6)


def test_flip_mirrors_what_was_cropped() -> None:
    data, placement = as_bytes(noise_picture(20, 16)), Placement(12, 10, 20, 16, 1, 3)
    plain, mirrored = (load_pixels(data, placement, no_augmentation(placement, flip=flip)) for flip in (False, True))
    assert torch.equal(plain.flip(2), mirrored) and not torch.equal(plain, mirrored)


def test_random_crops_reach_every_place_and_no_other() -> None:
    placement = Placement(12, 10, 14, 11, 1, 0)
    settings = AugmentSettings(random_crop=True)
    draws = [draw_augmentation(settings, placement, random.Random(seed)) for seed in range(300)]
    assert {(draw.crop_left, draw.crop_top) for draw in draws} == {(x, y) for x in range(3) for y in range(2)}
    assert all(not draw.flip and draw.hue_degrees == 0 and draw.gamma == 1 for draw in draws)


def test_without_settings_nothing_is_drawn() -> None:
    placement = Placement(12, 10, 20, 16, 4, 3)
    for seed in range(20):
        assert draw_augmentation(AugmentSettings(), placement, random.Random(seed)) == no_augmentation(placement)


def test_shares_of_flips_and_colours() -> None:
    placement = Placement(12, 12, 12, 12, 0, 0)
    settings = AugmentSettings(flip=True, color=True)
    draws = [draw_augmentation(settings, placement, random.Random(seed)) for seed in range(3000)]
    assert 1400 < sum(draw.flip for draw in draws) < 1600
    hue, gamma = sum(draw.hue_degrees != 0 for draw in draws), sum(draw.gamma != 1 for draw in draws)
    assert 420 < hue < 570 and 420 < gamma < 570
    assert max(abs(draw.hue_degrees) for draw in draws) <= 16
    assert all(0.95 <= draw.gamma <= 1.05 for draw in draws)


def test_flips_do_not_change_when_other_settings_do() -> None:
    placement = Placement(12, 12, 20, 20, 4, 4)
    few, many = AugmentSettings(flip=True), AugmentSettings(flip=True, color=True, random_crop=True)
    for seed in range(50):
        drawn = [draw_augmentation(settings, placement, random.Random(seed)).flip for settings in (few, many)]
        assert drawn[0] == drawn[1]


def test_what_is_picked_was_cached_and_all_of_it_is() -> None:
    placement = Placement(12, 12, 40, 40, 14, 14)
    for settings, count in (
        (AugmentSettings(), 1),
        (AugmentSettings(flip=True), 2),
        (AugmentSettings(random_crop=True), 6),
        (AugmentSettings(random_crop=True, color=True, flip=True), 12),
    ):
        cached = cached_augmentations(settings, placement, "0/a.png@12x12", 6)
        assert len(cached) == len(set(cached)) == count
        picked = {pick_cached(settings, placement, "0/a.png@12x12", 6, random.Random(seed)) for seed in range(300)}
        assert picked == set(cached)


def test_variants_depend_on_the_picture_and_their_number_only() -> None:
    placement, settings = Placement(12, 12, 400, 400, 194, 194), AugmentSettings(random_crop=True, flip=True)
    drawn = {(key, number): draw_variant(settings, placement, key, number) for key in "ab" for number in range(4)}
    assert len(set(drawn.values())) == 8
    assert drawn["a", 2] == draw_variant(AugmentSettings(random_crop=True), placement, "a", 2)
    assert not any(variant.flip for variant in drawn.values())


def one_colour(color: tuple[int, int, int], **changes: float) -> npt.NDArray[np.float64]:
    placement = Placement(8, 8, 8, 8, 0, 0)
    pixels = load_pixels(as_bytes(Image.new("RGB", (8, 8), color)), placement, Augmentation(0, 0, **changes))
    return (pixels[:, 4, 4].double().numpy() + 1) / 2


def test_gamma_is_a_power_of_the_value() -> None:
    found = one_colour((64, 128, 255), gamma=1.05)
    np.testing.assert_allclose(found, [(value / 255) ** 1.05 for value in (64, 128, 255)], atol=1e-6)


@pytest.mark.parametrize("degrees", [-16, 8, 16])
def test_hue_turns_and_luma_stays(degrees: float) -> None:
    before, after = (one_colour((150, 110, 100), hue_degrees=turn) for turn in (0.0, degrees))
    luma = np.array([0.299, 0.587, 0.114])
    assert math.isclose(before @ luma, after @ luma, abs_tol=1e-4)
    turned = (colorsys.rgb_to_hsv(*after)[0] - colorsys.rgb_to_hsv(*before)[0] + 0.5) % 1 - 0.5
    assert 0.4 < abs(turned) * 360 / abs(degrees) < 1.6
    np.testing.assert_allclose(one_colour((90, 90, 90), hue_degrees=degrees), [90 / 255] * 3, atol=1e-4)
