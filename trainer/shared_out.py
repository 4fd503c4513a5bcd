"""A frozen denoiser whose weights several processes hold together: each keeps its part of every block.

A block is whole in all of them while it computes, and all must use the same blocks in the same order: see
``Ranks.in_step``. Frozen weights have no gradients, so that bringing the parts together is all there is to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.block_fetching import ALIGNED_BYTES, Fetching, blocks_of


class Parts:
    """A ``Home`` that keeps one of equal parts of each block, and has those of all processes brought together.

    Args:
        index: this process's number.
        size: how many there are.
        device: where this process computes.
        group: the processes, for these exchanges alone.
    """

    def __init__(self, index: int, size: int, device: torch.device, group: Any) -> None:
        self.multiple_bytes = ALIGNED_BYTES * size
        self._index, self._size, self._device, self._group = index, size, device, group

    def keep(self, block: Tensor) -> Tensor:
        """See ``Home``."""
        return block.chunk(self._size)[self._index].to(self._device, copy=True)

    def moved(self, kept: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """It goes along, so that a run that pauses leaves the device."""
        return change(kept)

    def start(self, kept: Tensor, target: Tensor) -> Any:
        """See ``Home``."""
        return dist.all_gather_single(target, kept, group=self._group, async_op=True)

    def wait(self, started: Any) -> None:
        """See ``Home``."""
        started.wait()


def share_out_blocks(denoiser: nn.Module, parts: Parts, device: torch.device) -> Fetching:
    """Let this process keep its parts of all blocks of a denoiser alone. Returns what brings them together.

    To be called after its weights are packed and before adapters are put on it. What lies outside of blocks, and
    biases and normalisations, stay whole in each process.
    """
    fetching = Fetching(parts, device)
    for layers in blocks_of(denoiser):
        fetching.take(layers)
    return fetching
