"""The numbers of the steps, read when the device has them: a step never waits for its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from trainer.devices import backend, features_of, wait_for

STEPS_AHEAD = 2
"""Steps that are started on a GPU before the numbers of the first of them are waited for. Enough that the GPU never has
nothing to do, and few enough that a stop, or a loss on the page, is not long behind."""

T = TypeVar("T")


def steps_ahead(device: torch.device) -> int:
    """How many steps the host may be ahead: none where both are the same processor, or nothing tells what is done."""
    return STEPS_AHEAD if features_of(device).streams else 0


def moment(device: torch.device) -> Any:
    """A point in the device's work, for ``milliseconds``; on a GPU it lies behind all that was started so far."""
    if not features_of(device).streams:
        wait_for(device)
        return time.perf_counter()
    event = backend(device).Event(enable_timing=True)
    event.record()
    return event


def milliseconds(begin: Any, end: Any) -> float:
    """The time between two moments that are over."""
    return (end - begin) * 1000 if isinstance(begin, float) else begin.elapsed_time(end)


@dataclass(frozen=True)
class Read(Generic[T]):
    """A step's numbers, once they are there.

    Attributes:
        facts: what was known of the step when it was started.
        numbers: what the device found out.
        step_ms: how long the device had to do with it; work between the steps does not count.
    """

    facts: T
    numbers: list[float]
    step_ms: float


@dataclass(frozen=True)
class _Waiting(Generic[T]):
    facts: T
    numbers: Tensor
    begin: Any
    end: Any


class LateNumbers(Generic[T]):
    """Takes the numbers of steps in their order, and gives them back in it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._waiting: deque[_Waiting[T]] = deque()

    def add(self, facts: T, numbers: Tensor, begin: Any) -> None:
        """Take a step's numbers, which may not be computed yet.

        Args:
            facts: handed back with them.
            numbers: (N,) on the device; copied from there before anything that is started later.
            begin: the ``moment`` before the step.
        """
        if features_of(self._device).streams:
            host = torch.empty_like(numbers, device="cpu", pin_memory=True)
            numbers = host.copy_(numbers, non_blocking=True)
        else:
            numbers = numbers.clone()
        self._waiting.append(_Waiting(facts, numbers, begin, moment(self._device)))

    def ready(self) -> Iterator[Read[T]]:
        """All but the latest few; waits for them, so that the host is not further ahead than these few."""
        return self._but(steps_ahead(self._device))

    def all(self) -> Iterator[Read[T]]:
        """All; waits for the device to have done everything."""
        return self._but(0)

    def _but(self, left: int) -> Iterator[Read[T]]:
        while len(self._waiting) > left:
            step = self._waiting.popleft()
            if features_of(self._device).streams:
                step.end.synchronize()
            yield Read(step.facts, step.numbers.tolist(), milliseconds(step.begin, step.end))
