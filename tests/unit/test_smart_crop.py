"""The smart crop: finds what stands out wherever it is, and stays in the middle where nothing does."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from trainer.curation.smart_crop import best_window, saliency, smart_offset


def scene(width: int, height: int, spot: tuple[int, int], colour: str = "crimson") -> Image.Image:
    """Noise with a disc at ``spot``."""
    noise = np.random.default_rng(0).integers(-20, 20, (height, width, 3)) + np.array([90, 120, 90])
    image = Image.fromarray(noise.astype(np.uint8))
    ImageDraw.Draw(image).circle(spot, 25, fill=colour)
    return image


@pytest.mark.parametrize("spot", [30, 100, 200, 300, 370])
@pytest.mark.parametrize("colour", ["crimson", "black", "white", "royalblue"])
def test_the_subject_is_within_the_crop_wherever_it_is(spot: int, colour: str) -> None:
    left, top = smart_offset(scene(400, 120, (spot, 60), colour), (400, 120), (120, 120))
    assert left <= spot - 20 and spot + 20 <= left + 120
    assert top == 0
    left, top = smart_offset(scene(120, 400, (60, spot), colour), (60, 200), (60, 60))  # scaled by a half
    assert left == 0
    assert top <= spot / 2 - 10 and spot / 2 + 10 <= top + 60


def test_nothing_that_stands_out_means_the_centre() -> None:
    assert smart_offset(Image.new("RGB", (300, 100), "teal"), (300, 100), (100, 100)) == (100, 0)
    assert smart_offset(Image.new("RGB", (1, 1)), (8, 8), (4, 4)) == (2, 2)


def test_a_texture_does_not_outdo_a_subject() -> None:
    """Foliage on one side, a plain but differently coloured thing on the other."""
    values = np.full((120, 400, 3), 128, np.uint8)
    values[:, :200] = np.random.default_rng(1).integers(108, 148, (120, 200, 1))
    image = Image.fromarray(values)
    ImageDraw.Draw(image).circle((330, 60), 40, fill="orange")
    left, _ = smart_offset(image, (400, 120), (120, 120))
    assert left <= 290 and left + 120 >= 370


def test_windows_are_summed_as_they_should_be() -> None:
    map_ = np.random.default_rng(2).random((9, 13))
    for width, height in ((4, 3), (13, 9), (1, 1), (13, 2)):
        inner_width, inner_height = max(1, round(width * 0.6)), max(1, round(height * 0.6))
        scores = {}
        for top in range(9 - height + 1):
            for left in range(13 - width + 1):
                down, across = top + (height - inner_height) // 2, left + (width - inner_width) // 2
                inner = map_[down : down + inner_height, across : across + inner_width].sum()
                scores[left, top] = map_[top : top + height, left : left + width].sum() + inner
        assert best_window(map_, width, height) == max(scores, key=lambda place: scores[place])


def test_the_map_is_small_and_between_nothing_and_all() -> None:
    map_ = saliency(scene(2000, 500, (400, 250)))
    assert map_.shape == (24, 96)
    assert map_.min() >= 0
    assert map_.max() <= 1
