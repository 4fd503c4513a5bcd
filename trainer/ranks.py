"""The processes that train one run together, as the one among them sees it.

Each computes its share of every batch, and the first one leads: it alone decides, writes and tells; the others do what
it calls. ``Ranks`` itself is a process that trains alone: there is nobody to share with, to wait for or to tell.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from trainer.data.rows import Rows, rounds_of, rows_of
from trainer.errors import Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from trainer.gradient_sum import GradientSum

Call = Literal["load", "step", "validate", "draw", "leave", "return", "end"]
CALLS: tuple[Call, ...] = get_args(Call)
"""What all processes do at the same time: go on from a checkpoint, train a step, validate, draw previews where they go
in step, give the devices' memory back, take it again, and end."""

STARTER = "LORA_ATELIER_STARTER"
"""Names, to processes that ``launching.py`` has launched, the one that sees to their end and tells it."""

T = TypeVar("T")


class OutOfStep(RuntimeError):
    """Processes that hold the model together do not do the same any more, so that none of them can go on."""


class Ranks:
    """One process that trains alone.

    Attributes:
        index: this process's number, from 0 on.
        size: how many there are.
        in_step: whether all use the denoiser at the same time for passes of the same kind, as each holds but a part.
    """

    index = 0
    size = 1
    in_step = False

    @property
    def leads(self) -> bool:
        """Whether this is the process that decides, writes and tells."""
        return self.index == 0

    def device(self) -> torch.device | None:
        """Where this process computes; None where that is its own choice."""
        return None

    def gpus(self) -> list[str]:
        """UUIDs of the other GPUs of this machine that are computed on."""
        return []

    def share_out(self, denoiser: nn.Module, device: torch.device, *, wanted: bool) -> None:
        """Have each process hold but a part of a frozen denoiser, if ``wanted``; from then on all go in step."""

    def rows(self, whole: int) -> Rows:
        """This process's share of a batch of so many pictures. In step it is not empty, but may not count."""
        return rows_of(self.index, self.size, whole)

    def share(self, find: Callable[[], T]) -> T:
        """What the first process finds, for all: the others do not look themselves."""
        return find()

    def shares(self, pieces: Sequence[T]) -> Iterator[Sequence[T]]:
        """Pieces of work whose results all need and find on disk: first the own share, then, once all have done
        theirs, the rest."""
        yield pieces

    def rounds(self, pieces: Sequence[T]) -> Iterator[tuple[T, bool]]:
        """This process's share of pieces of work, and whether each counts: in step all do the same number of them."""
        return rounds_of(self.index, self.size, pieces, in_step=self.in_step)

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        return numbers

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Inside, memory that runs out for one process does so for all: raises MemoryError in the others too.

        In step that is so of whatever fails, unless processes are left in the middle of a pass: raises OutOfStep then.
        """
        yield

    def union(self, items: set[T]) -> set[T]:
        """What any process has."""
        return items

    def add_up(self, parameters: Sequence[nn.Parameter], passes: int) -> GradientSum | None:
        """What adds the gradients of all processes up; None where there is nothing to add. See ``GradientSum``."""
        return None

    def call(self, call: Call) -> None:
        """Have the others do the same as this process is about to do."""

    def calls(self) -> Iterator[Call]:
        """What the first process calls, up to ``end``."""
        return iter(())

    def lost(self) -> Problem | None:
        """What became of a process that is gone, so that all must end; None while all are there."""
        return None

    def cause(self, error: Exception) -> Problem | None:
        """What became of another process, where an error of this one comes of that; None where it does not."""
        return None

    def on_loss(self, end: Callable[[Problem], None]) -> None:
        """Have ``end`` called, in another thread, when a process is lost and this one does not notice by itself."""


ALONE = Ranks()


@contextmanager
def ranks_of_launch() -> Iterator[Ranks]:
    """The processes that were launched together with this one: by ``accelerate launch``, ``torchrun``, or ourselves."""
    if not is_launched():
        yield ALONE
        return
    from trainer.rank_group import joined  # only then: one process needs nothing of it

    with joined() as ranks:
        yield ranks


def is_launched() -> bool:
    """Whether this process is one of several, by the environment that launchers give it."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leads_launch() -> bool:
    """Whether this process leads, as far as can be told before they have found each other."""
    return not is_launched() or os.environ.get("RANK", "0") == "0"


def starter() -> int | None:
    """The process of our own that launched this one; None where a user did."""
    named = os.environ.get(STARTER)
    return int(named) if named else None
