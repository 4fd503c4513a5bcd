"""All factors of a model's LoRA in the format of its products, cast at once rather than each in its layer.

On a GPU a cast of one factor is a kernel that does hardly anything, and there are hundreds in a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer.frozen_layers import format_of


@dataclass(frozen=True)
class _Rounded:
    """A factor's values in another format, as they were there, at that version.

    torch counts most of what is done in place, but neither a fused optimizer's update nor a replayed one, nor that a
    factor is given other ``data``: so values never outlive the call of the module that they were cast for and its
    backward pass.
    """

    values: Tensor
    device: torch.device
    version: int


def round_before_forward(module: nn.Module, factors_now: Callable[[], list[Tensor]]) -> None:
    """Cast a module's factors whenever it is called, and forget those of the call before; ``rounded`` finds them."""
    module.register_forward_pre_hook(lambda *_: _round(factors_now()))


def rounded(factor: Tensor, dtype: torch.dtype) -> Tensor:
    """A factor's values in this format, if they were cast and have not changed since; else the factor itself."""
    kept: _Rounded | None = getattr(factor, "rounded", None)
    if kept is None or kept.values.dtype != dtype:
        return factor
    return kept.values if (kept.device, kept.version) == (factor.device, factor._version) else factor


@torch.no_grad()
def _round(factors: list[Tensor]) -> None:
    dtype = format_of(factors[0])
    if dtype == factors[0].dtype:
        for factor in factors:
            vars(factor).pop("rounded", None)
        return
    together = torch.cat([factor.detach().flatten() for factor in factors]).to(dtype)
    parts = together.split([factor.numel() for factor in factors])
    for factor, part in zip(factors, parts, strict=True):
        holder: Any = factor
        holder.rounded = _Rounded(part.view(factor.shape), factor.device, factor._version)
