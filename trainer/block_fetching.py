"""Blocks of the frozen denoiser that lie elsewhere, and come to the device when they are used.

Two places on the device, each as large as the largest block: in one lies the block that computes, into the other the
next one comes meanwhile. Nothing goes back, as nothing of it changes. What adapters add stays on the device. A block
is fetched by whoever asks for its weights, in forward and backward pass, recomputation and pictures alike; which one
is next is what came next the last time, so that only the first step waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainer.activations import BLOCK
from trainer.quantize import PackedWeight, keep_as_it_is

PLACES = 2
ALIGNED_BYTES = 256
"""Where a tensor may begin, as CUDA's allocator has it."""


class Home(Protocol):
    """Where blocks lie, and how they come from there beside the device's computations.

    Attributes:
        multiple_bytes: what a block's size is a multiple of.
    """

    multiple_bytes: int

    def keep(self, block: Tensor) -> Tensor:
        """What is kept of a block, (count,) uint8, to fetch it by."""

    def moved(self, kept: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """What is kept of a block when ``change`` moves the model to another device."""

    def start(self, kept: Tensor, target: Tensor) -> Any:
        """Begin to fetch a block after all that was begun on the device up to now. Returns what ``wait`` takes."""

    def wait(self, started: Any) -> None:
        """Let what is begun on the device from now on come after a block is there."""


@dataclass
class _Block:
    """Weights one after the other: what is kept of them, and how they are cut out of their bytes."""

    kept: Tensor
    count: int
    cut: Callable[[Tensor], dict[int, tuple[Tensor, Tensor]]]


@dataclass
class _Place:
    """Memory of the device, which block it holds, and the fetching that may still be going on."""

    memory: Tensor
    block: int = -1
    started: Any = None
    weights: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Fetching:
    """Fetches blocks, the next one while one computes.

    Attributes:
        asked: how often another block than the one before was asked for.
    """

    def __init__(self, home: Home, device: torch.device) -> None:
        self.asked = 0
        self._home, self._device = home, device
        self._blocks: list[_Block] = []
        self._places: list[_Place] = []
        self._before, self._current = -1, -1
        self._followed: dict[tuple[int, int], int] = {}

    def take(self, layers: Sequence[PackedWeight]) -> None:
        """Have the weights of a block's layers lie at home from now on."""
        tensors = [(layer.packed, layer.scale) for layer in layers]
        offsets = [0]
        for tensor in (each for pair in tensors for each in pair):
            offsets.append(offsets[-1] + math.ceil(tensor.nbytes / ALIGNED_BYTES) * ALIGNED_BYTES)
        shapes = [[(each.shape, each.dtype, each.nbytes) for each in pair] for pair in tensors]

        def cut(memory: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
            def piece(place: int, shape: torch.Size, dtype: torch.dtype, count: int) -> Tensor:
                return memory[offsets[place] : offsets[place] + count].view(dtype).view(shape)

            return {
                position: (piece(2 * position, *packed), piece(2 * position + 1, *scale))
                for position, (packed, scale) in enumerate(shapes)
            }

        count = math.ceil(offsets[-1] / self._home.multiple_bytes) * self._home.multiple_bytes
        whole = torch.zeros(count, dtype=torch.uint8, device=tensors[0][0].device)
        for own, given in zip(cut(whole).values(), tensors, strict=True):
            for target, source in zip(own, given, strict=True):
                target.copy_(source)
        number = len(self._blocks)
        self._blocks.append(_Block(self._home.keep(whole), count, cut))
        for position, layer in enumerate(layers):
            layer.lie_in(partial(self._weight, number, position), partial(self._moved, number))

    def release(self) -> None:
        """Give the places' memory back; whoever asks for weights has it taken again."""
        for place in self._places:
            self._arrived(place)
        self._places, self._before, self._current = [], -1, -1

    def _moved(self, number: int, change: Callable[[Tensor], Tensor]) -> None:
        self.release()
        block = self._blocks[number]
        block.kept = self._home.moved(block.kept, change)

    def _weight(self, number: int, position: int) -> tuple[Tensor, Tensor]:
        return self._weights(number)[position]

    def _weights(self, number: int) -> dict[int, tuple[Tensor, Tensor]]:
        """A block's weights on the device, until another one is asked for."""
        place = self._place_of(number) or self._fetch(number)
        self._arrived(place)
        if number != self._current:
            self.asked += 1
            self._followed[self._before, self._current] = number
            self._before, self._current = self._current, number
            following = self._followed.get((self._before, self._current))
            if following is not None and self._place_of(following) is None:
                self._fetch(following)
        return place.weights

    def _place_of(self, number: int) -> _Place | None:
        return next((place for place in self._places if place.block == number), None)

    def _fetch(self, number: int) -> _Place:
        """Begin to fetch a block into the place where the current one is not."""
        if not self._places:
            largest = max(block.count for block in self._blocks)
            self._places = [_Place(torch.empty(largest, dtype=torch.uint8, device=self._device)) for _ in range(PLACES)]
        place = next(each for each in self._places if each.block == -1 or each.block != self._current)
        self._arrived(place)
        block = self._blocks[number]
        memory = place.memory[: block.count]
        place.block, place.weights = number, block.cut(memory)
        place.started = self._home.start(block.kept, memory)
        return place

    def _arrived(self, place: _Place) -> None:
        if place.started is not None:
            self._home.wait(place.started)
            place.started = None


def blocks_of(denoiser: nn.Module) -> list[list[PackedWeight]]:
    """The layers with weights by the smallest block that they are in; each holds its weight as a packed one does."""
    found: dict[str, list[PackedWeight]] = {}
    for name, layer in list(denoiser.named_modules()):
        if inside := BLOCK.match(f"{name}."):
            keep_as_it_is(layer)
            if isinstance(layer, PackedWeight):
                found.setdefault(inside[1], []).append(layer)
    return list(found.values())
