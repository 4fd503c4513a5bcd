"""A picture to start from, brought to size, with the mask that says what is drawn anew; and the result put into it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageFilter

from trainer.inputs import read_input
from trainer.pictures import LARGEST_SIDE_PX, PictureSettings

_RESIZE_MODES = {"crop": "crop", "resize": "default", "pad": "fill"}
"""Our names for how a picture gets a size, and diffusers' (``VaeImageProcessor.resize``)."""
_SMALLEST_SIDE_PX = 64


@dataclass(frozen=True)
class Canvas:
    """A picture to draw on.

    Attributes:
        image: what the result is put into.
        mask: as large, grey, white where it is drawn anew, its borders softened; None for all of it.
        region: left, top, right and bottom of what is drawn; None for all of it.
        size: width and height that it is drawn at, in pixels.
    """

    image: Image.Image
    mask: Image.Image | None
    region: tuple[int, int, int, int] | None
    size: tuple[int, int]

    @property
    def pixels(self) -> torch.Tensor:
        """(1, 3, H, W) in [-1, 1]: what the model starts from."""
        return self._prepared(VaeImageProcessor(), self.image)

    @property
    def mask_cells(self) -> torch.Tensor | None:
        """(1, 1, H/8, W/8): 1 for the latent cells that are drawn anew, 0 for the others."""
        mask = self._mask_pixels
        if mask is None:
            return None
        return torch.nn.functional.interpolate(mask, size=(self.size[1] // 8, self.size[0] // 8))

    @property
    def kept_pixels(self) -> torch.Tensor:
        """(1, 3, H, W): ``pixels``, grey where they are drawn anew."""
        mask, pixels = self._mask_pixels, self.pixels
        return torch.zeros_like(pixels) if mask is None else pixels * (mask < 0.5)

    @property
    def _mask_pixels(self) -> torch.Tensor | None:
        """(1, 1, H, W) of 0 and 1."""
        if self.mask is None:
            return None
        processor = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
        return self._prepared(processor, self.mask)

    def finished(self, drawn: Image.Image) -> Image.Image:
        """The picture with what was drawn in it: outside the mask every pixel is that of ``image``."""
        if self.mask is None:
            return drawn
        return VaeImageProcessor().apply_overlay(self.mask, self.image, drawn, self.region)

    def _prepared(self, processor: VaeImageProcessor, image: Image.Image) -> torch.Tensor:
        width, height = self.size
        mode = "fill" if self.region else "default"
        return processor.preprocess(image, height=height, width=width, crops_coords=self.region, resize_mode=mode)


def make_canvas(settings: PictureSettings, size: tuple[int, int]) -> Canvas:
    """Read the picture to start from and its mask. Raises UserError when one of them cannot be read.

    Args:
        settings: they name the files.
        size: width and height to draw at, in pixels.
    """
    image = read_input(Path(settings.init_image or ""), "init_image")
    if settings.mask is None:
        return Canvas(_fitted(image, size, settings), None, None, size)
    mask = read_input(Path(settings.mask), "mask")
    if mask.size != image.size:
        mask = mask.resize(image.size, Image.Resampling.BILINEAR)
    if settings.inpaint_area == "whole":
        image, mask = _fitted(image, size, settings), _fitted(mask, size, settings).convert("L")
    mask = mask.filter(ImageFilter.GaussianBlur(settings.mask_blur))
    region = None
    if settings.inpaint_area == "masked":
        region = VaeImageProcessor.get_crop_region(mask, *size, pad=settings.mask_padding)
    return Canvas(image, mask, region, size)


def size_like(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Width and height in the shape of ``size`` with about the area of a square of ``side_px``: multiples of 8."""
    scale = side_px / math.sqrt(size[0] * size[1])
    width, height = (min(max(round(side * scale / 8) * 8, _SMALLEST_SIDE_PX), LARGEST_SIDE_PX) for side in size)
    return width, height


def _fitted(image: Image.Image, size: tuple[int, int], settings: PictureSettings) -> Image.Image:
    width, height = size
    return VaeImageProcessor().resize(image, height, width, resize_mode=_RESIZE_MODES[settings.fit])
