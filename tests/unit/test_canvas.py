"""A picture to start from keeps every pixel outside its mask, and gets its size in the three usual ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.canvas import make_canvas, size_like
from trainer.errors import UserError
from trainer.generate import Painter
from trainer.pictures import PictureSettings

FAST = {"prompt": "a red star", "steps": 2, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter("demo", torch.device("cpu"))


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    pixels = np.random.default_rng(3).integers(0, 256, (96, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((96, 120), np.uint8)
    mask[30:50, 61:90] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return {"init_image": str(tmp_path / "a.png"), "mask": str(tmp_path / "mask.png")}


def settings(given: dict[str, Any], **changes: Any) -> PictureSettings:
    return PictureSettings.model_validate({**FAST, **given, **changes})


@pytest.mark.parametrize("area", ["whole", "masked"])
@pytest.mark.parametrize("blur", [0, 3])
def test_outside_the_mask_nothing_changes(painter: Painter, given: dict[str, Any], area: str, blur: int) -> None:
    used = settings(given, inpaint_area=area, mask_blur=blur, width=120, height=96, mask_padding=8, strength=1)
    canvas = make_canvas(used, (120, 96))
    drawn, before = np.asarray(painter.draw(used, 7)), np.asarray(Image.open(given["init_image"]))
    changed = (drawn != before).any(axis=-1)
    outside = np.asarray(canvas.mask) == 0
    assert not changed[outside].any() and changed[~outside].mean() > 0.5
    assert outside.mean() > 0.6 and outside[:10].all()
    if not blur:
        assert np.array_equal(~outside, np.asarray(Image.open(given["mask"])) == 255)


def test_the_masked_part_alone_keeps_the_size_of_the_picture(painter: Painter, given: dict[str, Any]) -> None:
    used = settings(given, inpaint_area="masked", mask_padding=4, mask_blur=0)
    canvas = make_canvas(used, (64, 64))
    left, top, right, bottom = canvas.region or (0, 0, 0, 0)
    assert (left <= 57, top <= 26, right >= 94, bottom >= 54) == (True,) * 4
    assert right - left == bottom - top < 45  # in the shape of what is drawn, and not much more than the mask
    assert canvas.pixels.shape == (1, 3, 64, 64)
    assert painter.draw(used, 7).size == (120, 96)


def test_at_strength_0_the_picture_comes_back_exactly(painter: Painter, given: dict[str, Any]) -> None:
    before = np.asarray(Image.open(given["init_image"]))
    whole = settings({"init_image": given["init_image"]}, strength=0, width=120, height=96)
    assert np.array_equal(np.asarray(painter.draw(whole, 7)), before)
    assert np.array_equal(np.asarray(painter.draw(settings(given, strength=0, inpaint_area="masked"), 7)), before)


def test_ways_to_get_a_size(given: dict[str, Any], tmp_path: Path) -> None:
    """A picture twice as wide as high, of four colours from left to right, made square."""
    colours = ["red", "lime", "blue", "white"]
    image = Image.new("RGB", (128, 64))
    for index, colour in enumerate(colours):
        image.paste(colour, (32 * index, 0, 32 * index + 32, 64))
    image.save(tmp_path / "wide.png")

    def column(fit: str) -> Image.Image:
        return make_canvas(settings({"init_image": str(tmp_path / "wide.png")}, fit=fit), (64, 64)).image

    cropped, stretched, padded = column("crop"), column("resize"), column("pad")
    assert [cropped.getpixel((x, 32)) for x in (12, 52)] == [(0, 255, 0), (0, 0, 255)]
    assert [stretched.getpixel((x, 2)) for x in (6, 58)] == [(255, 0, 0), (255, 255, 255)]
    assert [padded.getpixel((x, y)) for x in (6, 58) for y in (1, 32)] == [(255, 0, 0)] * 2 + [(255, 255, 255)] * 2


def test_a_mask_of_another_size_is_stretched(given: dict[str, Any], tmp_path: Path) -> None:
    Image.open(given["mask"]).resize((240, 192), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    large = make_canvas(settings(given, mask=str(tmp_path / "large.png"), mask_blur=0), (120, 96)).mask_cells
    plain = make_canvas(settings(given, mask_blur=0), (120, 96)).mask_cells
    assert large is not None and plain is not None
    assert torch.equal(large, plain) and plain.shape == (1, 1, 12, 15)
    assert set(plain.unique().tolist()) == {0.0, 1.0}


def test_files_that_are_gone(painter: Painter) -> None:
    gone = PictureSettings.model_validate({"init_image": "gone.png"})
    with pytest.raises(UserError, match=r"init_image: there is no picture gone\.png"):
        painter.draw(gone, 1)
    with pytest.raises(UserError, match=r"init_image: there is no picture gone\.png"):
        make_canvas(settings({"init_image": "gone.png"}), (64, 64))


@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [((400, 400), 512, (512, 512)), ((3000, 2000), 512, (624, 416)), ((10, 4000), 512, (64, 4096))],
)
def test_sizes_in_the_shape_of_a_picture(shape: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert size_like(shape, side) == expected
