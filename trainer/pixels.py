"""Pictures as lists of their pixels: without a copy where channels lie side by side (``channels_last``)."""

from __future__ import annotations

import torch
from torch import Tensor


def as_pixels(picture: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h * w, C)."""
    return picture.flatten(2).transpose(1, 2)


def as_picture(pixels: Tensor, size: torch.Size) -> Tensor:
    """The other way, to a picture of this height and width."""
    return pixels.transpose(1, 2).unflatten(2, size)
