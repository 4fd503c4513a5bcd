"""Which pictures of a batch a process has, where several train one run. Never torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T", bound="Sequence[object]")
P = TypeVar("P")


@dataclass(frozen=True)
class Rows:
    """``count`` pictures from the ``first`` on, of a batch of ``whole``: the places that chance belongs to.

    Those of a process that goes along with another's picture do not count.
    """

    first: int
    count: int
    whole: int
    counts: bool = True

    @property
    def are_all(self) -> bool:
        """Whether there is no other process with pictures of this batch."""
        return self.count == self.whole

    @property
    def part(self) -> slice:
        """Where they lie in the whole batch."""
        return slice(self.first, self.first + self.count)

    @property
    def times_fewer(self) -> float:
        """How many times as many pictures the whole batch has: a mean over it is that of these divided by this, and
        the others' means. Infinitely many where these do not count."""
        return self.whole / self.count if self.counts else math.inf


def all_rows(count: int) -> Rows:
    """The whole batch."""
    return Rows(0, count, count)


def rows_of(process: int, processes: int, whole: int) -> Rows:
    """The share of one process: as even as can be, in order, each picture once; perhaps none.

    Of a batch of at most ``processes * n`` pictures nobody gets more than ``n``.
    """
    first, end = whole * process // processes, whole * (process + 1) // processes
    return Rows(first, end - first, whole)


def rows_in_step(process: int, processes: int, whole: int) -> Rows:
    """The same where all have to compute: who has no picture takes the first one along, which does not count."""
    own = rows_of(process, processes, whole)
    return own if own.count else Rows(0, 1, whole, counts=False)


def rounds_of(process: int, processes: int, pieces: Sequence[P], *, in_step: bool) -> Iterator[tuple[P, bool]]:
    """Every ``processes``-th of pieces of work, and whether each counts.

    ``in_step`` all have the same number: who would have one less takes the last one along, which does not count.
    """
    own = pieces[process::processes]
    yield from ((piece, True) for piece in own)
    if in_step and len(own) * processes < len(pieces):
        yield pieces[-1], False
