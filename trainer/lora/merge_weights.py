"""The sums of a merge: ``W + sum(strength * change)``, computed by blocks of rows so that memory stays small.

A plain LoRA changes each row of a weight by itself, ``W[rows] + strength * alpha / rank * up[rows] @ down``, so only
some rows are held at a time, and they stay in the processor's cache. DoRA, LoHa and LoKr are computed weight by weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.devices import features_of
from trainer.errors import UserError
from trainer.lora.layers import Layer, LoraLayer, add_changes
from trainer.lora.weight_file import WeightSource
from trainer.single_file.names import Source

_BLOCK_NUMBERS, _BLOCK_NUMBERS_ON_CPU = 1 << 24, 1 << 20


@dataclass(frozen=True)
class Change:
    """What is added to one weight, how much of it, and where in the stored tensor the weight lies."""

    layer: Layer
    strength: float
    source: Source


@contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread for what runs within.

    A block is summed in the time that a second thread takes to begin: threads gain nothing here, and beside other work
    they spend ten times the sums' own processor time waiting for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Sums:
    """How sums are computed: in which number format, and on which device."""

    compute: torch.dtype
    device: torch.device

    def blocks(self, source: WeightSource, name: str, changes: list[Change], target: torch.dtype) -> Iterator[Tensor]:
        """The changed tensor's rows from the first to the last, in ``target``, on the CPU.

        Raises UserError when a number of the result is not finite in ``target``.
        """
        rows = source.table[name].shape[0]
        thirds = 3 if any(change.source.third is not None for change in changes) else 1
        for third in range(thirds):
            begin, end = third * rows // thirds, (third + 1) * rows // thirds
            own = [change for change in changes if change.source.third in (None, third)]
            if not own:
                yield from _cast_rows(source, name, (begin, end), target)
                continue
            plain = all(change.layer.is_plain and not change.source.transposed for change in own)
            stretch = self._by_rows if plain else self._whole
            for block in stretch(source, name, own, (begin, end)):
                yield _stored(block, target, name)

    def _by_rows(
        self, source: WeightSource, name: str, changes: list[Change], stretch: tuple[int, int]
    ) -> Iterator[Tensor]:
        factors = [
            (self._factor(layer.up), self._factor(layer.down), each.strength * layer.scale)
            for each in changes
            if isinstance(layer := each.layer, LoraLayer)
        ]
        for first, end in _blocks_of(source, name, stretch, self.device):
            block = source.rows(name, first, end).to(self.device, self.compute)
            for up, down, strength in factors:
                block.flatten(1).addmm_(up[first - stretch[0] : end - stretch[0]], down, alpha=strength)
            yield block

    def _whole(
        self, source: WeightSource, name: str, changes: list[Change], stretch: tuple[int, int]
    ) -> Iterator[Tensor]:
        weight = source.rows(name, *stretch).to(self.device)
        transposed = changes[0].source.transposed
        pairs = [(_on(each.layer, self.device), each.strength) for each in changes]
        result = add_changes(weight.T.contiguous() if transposed else weight, pairs, self.compute)
        yield result.T if transposed else result

    def _factor(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.compute).flatten(1)


def cast_blocks(source: WeightSource, name: str, target: torch.dtype) -> Iterator[Tensor]:
    """A tensor's rows in another number format. Raises UserError when one is then no longer finite."""
    shape = source.table[name].shape
    if shape:
        yield from _cast_rows(source, name, (0, shape[0]), target)
        return
    number = bytearray(b"".join(source.raw(name)))
    yield _stored(torch.frombuffer(number, dtype=source.table[name].dtype or torch.uint8), target, name)


def _cast_rows(source: WeightSource, name: str, stretch: tuple[int, int], target: torch.dtype) -> Iterator[Tensor]:
    for first, end in _blocks_of(source, name, stretch, torch.device("cpu")):
        yield _stored(source.rows(name, first, end), target, name)


def _blocks_of(
    source: WeightSource, name: str, stretch: tuple[int, int], device: torch.device
) -> Iterator[tuple[int, int]]:
    """(first row, row after the last) of each block of a stretch of rows."""
    row_numbers = math.prod(source.table[name].shape[1:])
    numbers = _BLOCK_NUMBERS if features_of(device).beside_host else _BLOCK_NUMBERS_ON_CPU
    count = max(1, numbers // max(1, row_numbers))
    return ((first, min(first + count, stretch[1])) for first in range(*stretch, count))


def _on(layer: Layer, device: torch.device) -> Layer:
    moved = {name: getattr(layer, name) for name in (*layer.tensor_names(), "magnitude")}
    return replace(layer, **{name: value.to(device) for name, value in moved.items() if value is not None})  # type: ignore[type-var]


def _stored(block: Tensor, target: torch.dtype, name: str) -> Tensor:
    """The block in ``target``. Rounding keeps order: the smallest and the largest number tell of all of them."""
    if block.numel() and not bool(torch.stack(block.aminmax()).to(target).isfinite().all()):
        message = f"The merged weight {name} is too large for {str(target).removeprefix('torch.')}, or not finite."
        raise UserError("merge.overflow", message, "Use smaller ratios, or save as bf16 or float.", "save_precision")
    return block.to(target).cpu()
