"""Rank and module dropout of LoRA layers, as sd-scripts has them. Both draw from torch's own generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config import LoraSettings


def add_dropout(down: nn.Module, up: nn.Module, settings: LoraSettings) -> None:
    """Let a LoRA's two layers drop ranks, and the whole of themselves, while they are in training mode."""
    if settings.rank_dropout:
        rank_dim = 1 if isinstance(down, nn.Conv2d) else -1
        down.register_forward_hook(
            lambda module, inputs, output: (
                drop_ranks(output, settings.rank_dropout, rank_dim) if module.training else None
            )
        )
    if settings.module_dropout:
        up.register_forward_hook(
            lambda module, inputs, output: drop_module(output, settings.module_dropout) if module.training else None
        )


def drop_ranks(hidden: Tensor, share: float, rank_dim: int) -> Tensor:
    """Set a share of the ranks to zero, for each row of the batch anew; the others grow by ``1 / (1 - share)``.

    Args:
        hidden: (B, ..., rank), or (B, rank, h, w) with ``rank_dim`` 1: what the down part gives.
        share: probability of each rank to be dropped.
        rank_dim: where the rank is.
    """
    shape = [1] * hidden.ndim
    shape[0], shape[rank_dim] = hidden.shape[0], hidden.shape[rank_dim]
    kept = torch.rand(shape, device=hidden.device) >= share
    return hidden * (kept / (1 - share)).to(hidden.dtype)


def drop_module(change: Tensor, share: float) -> Tensor:
    """Nothing of a layer's change with probability ``share``, else all of it, unscaled.

    Multiplied rather than skipped: the host need not wait for the draw, and a step without any layer has gradients.
    """
    return change * (torch.rand((), device=change.device) >= share).to(change.dtype)
