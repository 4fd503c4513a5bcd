"""Blocks of the frozen denoiser that lie in the machine's memory and come to the GPU when they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.block_fetching import ALIGNED_BYTES, Fetching, Home, blocks_of
from trainer.devices import backend, features_of
from trainer.quantize import PackedWeight


class HostMemory:
    """Memory that the system does not move, and a stream of its own to copy from there."""

    multiple_bytes = ALIGNED_BYTES

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._backend = backend(device)
        self._stream = self._backend.Stream(device)

    def keep(self, block: Tensor) -> Tensor:
        """See ``Home``."""
        return torch.empty(len(block), dtype=torch.uint8, pin_memory=True).copy_(block)

    def moved(self, kept: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """It stays where it is."""
        return kept

    def start(self, kept: Tensor, target: Tensor) -> Any:
        """See ``Home``."""
        self._stream.wait_stream(self._backend.current_stream(self._device))
        with self._backend.stream(self._stream):
            target.copy_(kept, non_blocking=True)
            return self._stream.record_event()

    def wait(self, started: Any) -> None:
        """See ``Home``."""
        self._backend.current_stream(self._device).wait_event(started)


def host_memory_for(device: torch.device) -> Home | None:
    """Where blocks lie that are offloaded; None where the machine's memory is the device's."""
    return HostMemory(device) if features_of(device).offloads else None


def offload_blocks(denoiser: nn.Module, share: float, device: torch.device) -> None:
    """Take a share of a denoiser's blocks out of the device's memory, spread over its depth.

    To be called after its weights are packed and before adapters are put on it, which find their layers' weights on
    the device.
    """
    home = host_memory_for(device) if share else None
    if home is None:
        return
    blocks = blocks_of(denoiser)
    fetching = Fetching(home, device)
    for number in spread([_bytes(layers) for layers in blocks], share):
        fetching.take(blocks[number])


def spread(sizes: Sequence[int], share: float) -> list[int]:
    """Which of several sizes to choose, evenly, so that they come to about a share of all."""
    chosen: list[int] = []
    seen, taken = 0, 0
    for number, size in enumerate(sizes):
        seen += size
        if taken + size / 2 <= share * seen:
            chosen.append(number)
            taken += size
    return chosen


def _bytes(layers: Sequence[PackedWeight]) -> int:
    return sum(each.nbytes for layer in layers for each in (layer.packed, layer.scale))
