"""First values of adapters. Drawn on the CPU and copied: the same numbers whatever device the layer is on."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def fill_kaiming_uniform(parameter: Tensor, generator: torch.Generator) -> None:
    """Kaiming uniform (He et al. 2015) with ``a = sqrt(5)``, torch's own start of a linear layer."""
    parameter.copy_(nn.init.kaiming_uniform_(torch.empty(parameter.shape), a=math.sqrt(5), generator=generator))


@torch.no_grad()
def fill_normal(parameter: Tensor, deviation: float, generator: torch.Generator) -> None:
    """Normal with mean 0."""
    parameter.copy_(nn.init.normal_(torch.empty(parameter.shape), std=deviation, generator=generator))
