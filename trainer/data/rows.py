"""Which pictures of a batch a process has, where several train one run. Never torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T", bound="Sequence[object]")


@dataclass(frozen=True)
class Rows:
    """``count`` pictures from the ``first`` on, of a batch of ``whole``: the places that chance belongs to."""

    first: int
    count: int
    whole: int

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
        the others' means."""
        return self.whole / self.count


def all_rows(count: int) -> Rows:
    """The whole batch."""
    return Rows(0, count, count)


def rows_of(process: int, processes: int, whole: int) -> Rows:
    """The share of one process: as even as can be, in order, each picture once; perhaps none.

    Of a batch of at most ``processes * n`` pictures nobody gets more than ``n``.
    """
    first, end = whole * process // processes, whole * (process + 1) // processes
    return Rows(first, end - first, whole)
