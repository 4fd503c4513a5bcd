"""Scaling pictures: the mean over each target pixel's area when shrinking, Lanczos otherwise. Never torch."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.float32]


def resize(image: Image.Image, width: int, height: int) -> Pixels:
    """An RGB image as (height, width, 3) float32 in 0..255, scaled; a grey one as (height, width).

    Pillow's own box filter gives every source pixel it touches the same weight, which shows as stripes at factors
    between 1 and 2; here a pixel counts by the share of it that is covered.
    """
    if image.size == (width, height):
        return np.asarray(image, dtype=np.float32)
    if width <= image.width and height <= image.height:
        rows = _area_mean(np.asarray(image), height)
        return _area_mean(rows.swapaxes(0, 1), width).swapaxes(0, 1)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float32)


def _area_mean(values: npt.NDArray[np.generic], length: int) -> Pixels:
    """Shrink the first axis to ``length`` by area means. A product per target row is five times a gather of all."""
    count = len(values)
    if count == length:
        return values.astype(np.float32)
    flat = np.ascontiguousarray(values).reshape(count, -1)
    edges = np.linspace(0, count, length + 1)
    means = np.empty((length, flat.shape[1]), np.float32)
    for row, (start, end) in enumerate(pairwise(edges)):
        pixels = np.arange(math.floor(start), math.ceil(end))
        covered = np.minimum(pixels + 1, end) - np.maximum(pixels, start)
        means[row] = (covered / (end - start)).astype(np.float32) @ flat[pixels[0] : pixels[-1] + 1].astype(np.float32)
    return means.reshape(length, *values.shape[1:])
