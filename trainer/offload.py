"""Blocks of a frozen denoiser that lie in the machine's memory and come to the GPU when they are used.

Two places on the GPU, each as large as the largest block: in one lies the block that computes, into the other the next
one is copied meanwhile. Nothing is copied back, as nothing of it changes. What adapters add stays on the GPU. A block
is fetched by whoever asks for its weights, in forward and backward pass, recomputation and pictures alike; which one
is next is what came next the last time, so that only the first step waits for its copies.
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
from trainer.devices import backend, features_of
from trainer.quantize import PackedWeight, keep_as_it_is

PLACES = 2
_ALIGNED = 256  # bytes, as CUDA's allocator has it


class Copies(Protocol):
    """Copies to a device that go on beside its computations."""

    def host(self, count: int) -> Tensor:
        """(count,) uint8 of the machine's memory, which can be copied from beside computations."""

    def start(self, source: Tensor, target: Tensor) -> Any:
        """Begin a copy after all that was begun on the device up to now. Returns what ``wait`` takes."""

    def wait(self, started: Any) -> None:
        """Let what is begun on the device from now on come after a copy."""


class StreamCopies:
    """On a stream of their own, from memory that the system does not move."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._backend = backend(device)
        self._stream = self._backend.Stream(device)

    def host(self, count: int) -> Tensor:
        """See ``Copies``."""
        return torch.empty(count, dtype=torch.uint8, pin_memory=True)

    def start(self, source: Tensor, target: Tensor) -> Any:
        """See ``Copies``."""
        self._stream.wait_stream(self._backend.current_stream(self._device))
        with self._backend.stream(self._stream):
            target.copy_(source, non_blocking=True)
            return self._stream.record_event()

    def wait(self, started: Any) -> None:
        """See ``Copies``."""
        self._backend.current_stream(self._device).wait_event(started)


def copies_for(device: torch.device) -> Copies | None:
    """How blocks come to a device; None where the machine's memory is the device's."""
    return StreamCopies(device) if features_of(device).offloads else None


def offload_blocks(denoiser: nn.Module, share: float, device: torch.device) -> None:
    """Take a share of a denoiser's blocks out of the device's memory, spread over its depth.

    To be called after its weights are packed and before adapters are put on it, which find their layers' weights on
    the device.
    """
    copies = copies_for(device) if share else None
    if copies is None:
        return
    blocks = _blocks(denoiser)
    offload = Offload(copies, device)
    for number in spread([_bytes(layers) for layers in blocks], share):
        offload.take(blocks[number])


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


@dataclass
class _Block:
    """Weights one after the other, in the machine's memory."""

    home: Tensor
    cut: Callable[[Tensor], dict[int, tuple[Tensor, Tensor]]]


@dataclass
class _Place:
    """Memory of the device, which block it holds, and the copy that may still be going on."""

    memory: Tensor
    block: int = -1
    started: Any = None
    weights: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Offload:
    """Fetches blocks, the next one while one computes."""

    def __init__(self, copies: Copies, device: torch.device) -> None:
        self._copies, self._device = copies, device
        self._blocks: list[_Block] = []
        self._places: list[_Place] = []
        self._before, self._current = -1, -1
        self._followed: dict[tuple[int, int], int] = {}

    def take(self, layers: Sequence[PackedWeight]) -> None:
        """Keep the weights of a block's layers from now on."""
        tensors = [(layer.packed, layer.scale) for layer in layers]
        offsets = [0]
        for tensor in (each for pair in tensors for each in pair):
            offsets.append(offsets[-1] + math.ceil(tensor.nbytes / _ALIGNED) * _ALIGNED)
        shapes = [[(each.shape, each.dtype, each.nbytes) for each in pair] for pair in tensors]

        def cut(memory: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
            def piece(place: int, shape: torch.Size, dtype: torch.dtype, count: int) -> Tensor:
                return memory[offsets[place] : offsets[place] + count].view(dtype).view(shape)

            return {
                position: (piece(2 * position, *packed), piece(2 * position + 1, *scale))
                for position, (packed, scale) in enumerate(shapes)
            }

        home = self._copies.host(offsets[-1])
        for own, given in zip(cut(home).values(), tensors, strict=True):
            for target, source in zip(own, given, strict=True):
                target.copy_(source)
        number = len(self._blocks)
        self._blocks.append(_Block(home, cut))
        for position, layer in enumerate(layers):
            layer.lie_in(partial(self._weight, number, position), self.release)

    def release(self) -> None:
        """Give the device's memory back; whoever asks for weights has it taken again."""
        for place in self._places:
            self._arrived(place)
        self._places, self._before, self._current = [], -1, -1

    def _weight(self, number: int, position: int) -> tuple[Tensor, Tensor]:
        return self._weights(number)[position]

    def _weights(self, number: int) -> dict[int, tuple[Tensor, Tensor]]:
        """A block's weights on the device, until another one is asked for."""
        place = self._place_of(number) or self._fetch(number)
        self._arrived(place)
        if number != self._current:
            self._followed[self._before, self._current] = number
            self._before, self._current = self._current, number
            following = self._followed.get((self._before, self._current))
            if following is not None and self._place_of(following) is None:
                self._fetch(following)
        return place.weights

    def _place_of(self, number: int) -> _Place | None:
        return next((place for place in self._places if place.block == number), None)

    def _fetch(self, number: int) -> _Place:
        """Begin to copy a block into the place where the current one is not."""
        if not self._places:
            largest = max(len(block.home) for block in self._blocks)
            self._places = [_Place(torch.empty(largest, dtype=torch.uint8, device=self._device)) for _ in range(PLACES)]
        place = next(each for each in self._places if each.block == -1 or each.block != self._current)
        self._arrived(place)
        block = self._blocks[number]
        memory = place.memory[: len(block.home)]
        place.block, place.weights = number, block.cut(memory)
        place.started = self._copies.start(block.home, memory)
        return place

    def _arrived(self, place: _Place) -> None:
        if place.started is not None:
            self._copies.wait(place.started)
            place.started = None


def _blocks(denoiser: nn.Module) -> list[list[PackedWeight]]:
    """The layers with weights by the smallest block that they are in."""
    found: dict[str, list[PackedWeight]] = {}
    for name, layer in list(denoiser.named_modules()):
        if inside := BLOCK.match(f"{name}."):
            keep_as_it_is(layer)
            if isinstance(layer, PackedWeight):
                found.setdefault(inside[1], []).append(layer)
    return list(found.values())


def _bytes(layers: Sequence[PackedWeight]) -> int:
    return sum(each.nbytes for layer in layers for each in (layer.packed, layer.scale))
