"""The tensors of a merged model: where each comes from, what changes it, and in which number format it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce

import torch
from torch import Tensor

from trainer.lora.merge_plan import Base, MergePlan
from trainer.lora.merge_weights import Sums, cast_blocks
from trainer.lora.weight_file import FORMATS, Block, Item, Stored, WeightSource
from trainer.single_file.original import Original

_NAMES = {dtype: name for name, dtype in FORMATS.items()}

Piece = tuple[WeightSource, str]
"""A tensor of an open file."""


class Items:
    """Makes what is to be written out of an open model and the plan of its merge.

    Args:
        base: the model.
        plan: what changes.
        sums: how that is computed.
        save: number format of the weights written; None keeps each weight's own.
    """

    def __init__(self, base: Base, plan: MergePlan, sums: Sums, save: torch.dtype | None) -> None:
        self.plan = plan
        self._base = base
        self._sums = sums
        self._save = save
        self._of_parts = base.tensors_of_parts

    def of_file(self, file: WeightSource) -> list[Item]:
        """All tensors of a file, under their own names and in their order."""
        return [self._item(name, stored.shape, [(file, name)]) for name, stored in file.table.items()]

    def of_originals(self, originals: dict[str, Original]) -> list[Item]:
        """A single file's tensors, made of those of a model folder."""
        items = []
        for name, original in originals.items():
            spots = [self._base.spot(original.part, weight) for weight in original.weights]
            pieces = [(spot.file, spot.source.name) for spot in spots]
            items.append(self._item(name, original.shape, pieces, transposed=original.transposed))
        return items

    def _item(self, name: str, shape: tuple[int, ...], pieces: list[Piece], *, transposed: bool = False) -> Item:
        """One tensor made of others, one after the other."""
        target = self._target(pieces)
        if target is None:  # in a format that cannot be computed with, such as integers
            ((file, own),) = pieces
            return Item(name, file.table[own], lambda: file.raw(own))
        numbers = sum(_numbers(file.table[own]) for file, own in pieces)
        stored = Stored(_NAMES[target], shape, numbers * target.itemsize)
        return Item(name, stored, self._turned(pieces, target) if transposed else self._in_row(pieces, target))

    def _target(self, pieces: list[Piece]) -> torch.dtype | None:
        """The number format that the pieces are written in together."""
        dtypes = [dtype for file, own in pieces if (dtype := file.table[own].dtype) is not None]
        if len(dtypes) < len(pieces):
            return None
        cast = self._save is not None and all((file.path, own) in self._of_parts for file, own in pieces)
        return self._save if cast else reduce(torch.promote_types, dtypes)

    def _in_row(self, pieces: list[Piece], target: torch.dtype) -> Callable[[], Iterator[Block]]:
        def blocks() -> Iterator[Block]:
            for file, own in pieces:
                if (file.path, own) not in self.plan.changes and file.table[own].dtype == target:
                    yield from file.raw(own)
                else:
                    yield from self._tensors(file, own, target)

        return blocks

    def _turned(self, pieces: list[Piece], target: torch.dtype) -> Callable[[], Iterator[Block]]:
        def blocks() -> Iterator[Block]:
            yield torch.cat([block for file, own in pieces for block in self._tensors(file, own, target)]).T

        return blocks

    def _tensors(self, file: WeightSource, own: str, target: torch.dtype) -> Iterator[Tensor]:
        changes = self.plan.changes.get((file.path, own))
        return self._sums.blocks(file, own, changes, target) if changes else cast_blocks(file, own, target)


def _numbers(stored: Stored) -> int:
    return stored.size_bytes // stored.dtype.itemsize if stored.dtype is not None else 0
