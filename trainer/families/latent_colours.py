"""Colours straight from latents: the linear map that fits a VAE best, for pictures that need not be good."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from trainer.devices import seeded_generator

_SAMPLE_PX = 128
_PATCHES = 6
"""Coloured points along a side of the picture that the map is fitted on."""


def fit_colours(encode: Callable[[Tensor], Tensor], scale: int) -> Tensor:
    """The map from a latent cell to its mean colour: (C + 1, 3) float32 on the CPU, the last row a constant.

    Least squares over the cells of one picture of soft random colours, encoded by the model's own VAE. A VAE of Stable
    Diffusion keeps colours in its latents nearly linearly, which is what other programs' tables of such numbers use.

    Args:
        encode: pixels (1, 3, H, W) in [-1, 1] to latents (1, C, H/scale, W/scale).
        scale: pixels per cell.
    """
    points = torch.rand(1, 3, _PATCHES, _PATCHES, generator=seeded_generator(0, "latent colours")) * 2.4 - 1.2
    pixels = functional.interpolate(points, size=_SAMPLE_PX, mode="bicubic", align_corners=True).clamp(-1, 1)
    cells = with_constant(encode(pixels).cpu())
    colours = functional.avg_pool2d(pixels, scale)
    solution = torch.linalg.lstsq(_rows(cells).double(), _rows(colours).double()).solution
    return solution.float()


def with_constant(latents: Tensor) -> Tensor:
    """(B, C, h, w) latents with one more channel of ones."""
    return torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1)


def _rows(planes: Tensor) -> Tensor:
    return planes.permute(0, 2, 3, 1).flatten(0, 2)
