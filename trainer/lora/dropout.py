"""Rank and module dropout of LoRA layers, as sd-scripts has them. Both draw from torch's own generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import LoraSettings
from trainer.data.rows import Rows


class Draws:
    """Random numbers for a process's rows of a batch: those that they would get if the whole batch were here.

    All numbers of the batch are drawn, in its order, and the others are thrown away: what a picture gets depends on its
    place in the batch alone, whatever the number of processes.

    Attributes:
        rows: what this process has of the batch; None where it has all.
    """

    def __init__(self) -> None:
        self.rows: Rows | None = None

    def uniform(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """(B, ...) numbers in [0, 1)."""
        whole, part = self._places(shape[0])
        drawn = torch.rand((whole, *shape[1:]), device=device)
        return drawn if whole == shape[0] else drawn[part]

    def dropout(self, inputs: Tensor, share: float, training: bool) -> Tensor:
        """``functional.dropout`` of (B, ...), however it lies in memory: torch draws in that order."""
        whole, part = self._places(len(inputs))
        if (whole == len(inputs) and inputs.is_contiguous()) or not training or not share:
            return functional.dropout(inputs, share, training)
        return inputs * functional.dropout(inputs.new_ones(whole, *inputs.shape[1:]), share)[part]

    def _places(self, count: int) -> tuple[int, slice]:
        """How many rows the whole batch has, and where these are. Each picture may have several, side by side."""
        if self.rows is None or self.rows.are_all:
            return count, slice(None)
        each = count // self.rows.count
        return each * self.rows.whole, slice(each * self.rows.first, each * self.rows.first + count)


class RowDropout(nn.Module):
    """``nn.Dropout`` whose numbers are of the whole batch."""

    def __init__(self, share: float, draws: Draws) -> None:
        super().__init__()
        self._share, self._draws = share, draws

    def forward(self, inputs: Tensor) -> Tensor:
        """Of (B, ...), the same shape."""
        return self._draws.dropout(inputs, self._share, self.training)


def add_dropout(down: nn.Module, up: nn.Module, settings: LoraSettings, draws: Draws) -> None:
    """Let a LoRA's two layers drop ranks, and the whole of themselves, while they are in training mode."""
    if settings.rank_dropout:
        rank_dim = 1 if isinstance(down, nn.Conv2d) else -1
        down.register_forward_hook(
            lambda module, inputs, output: (
                drop_ranks(output, settings.rank_dropout, rank_dim, draws) if module.training else None
            )
        )
    if settings.module_dropout:
        up.register_forward_hook(
            lambda module, inputs, output: drop_module(output, settings.module_dropout) if module.training else None
        )


def drop_ranks(hidden: Tensor, share: float, rank_dim: int, draws: Draws) -> Tensor:
    """Set a share of the ranks to zero, for each row of the batch anew; the others grow by ``1 / (1 - share)``.

    Args:
        hidden: (B, ..., rank), or (B, rank, h, w) with ``rank_dim`` 1: what the down part gives.
        share: probability of each rank to be dropped.
        rank_dim: where the rank is.
        draws: where chance comes from.
    """
    shape = [1] * hidden.ndim
    shape[0], shape[rank_dim] = hidden.shape[0], hidden.shape[rank_dim]
    kept = draws.uniform(shape, hidden.device) >= share
    return hidden * (kept / (1 - share)).to(hidden.dtype)


def drop_module(change: Tensor, share: float) -> Tensor:
    """Nothing of a layer's change with probability ``share``, else all of it, unscaled.

    Multiplied rather than skipped: the host need not wait for the draw, and a step without any layer has gradients.
    """
    return change * (torch.rand((), device=change.device) >= share).to(change.dtype)
