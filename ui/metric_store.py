"""What a run measured in columns of numbers: 8 bytes for each. No gradio in here."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runs.events import Event

Numbers = NDArray[np.float64]

MOST_METRICS = 40
"""Names beyond these are left out: a run has about ten."""
MOST_OVERLAPS = 20
NOT_A_NUMBER = math.inf
"""Stands in a column for a value that was told as NaN or infinite; NaN stands for one that was not told."""

_OVERLAP_POINTS = 200
_NAME = re.compile(r"[A-Za-z]\w{0,62}")
_NOT_METRICS = ("time", "type", "step")


@dataclass(frozen=True)
class Overlap:
    """Steps that were done once, and again after the run went on from an earlier checkpoint.

    Attributes:
        steps: of the first time, thinned.
        elapsed: their training time in seconds.
        loss: their losses.
    """

    steps: NDArray[np.int64]
    elapsed: Numbers
    loss: Numbers


class MetricStore:
    """Steps in ascending order, with their training time and metrics.

    Attributes:
        overlaps: what was done twice, oldest first.
    """

    def __init__(self) -> None:
        self.overlaps: list[Overlap] = []
        self._count = 0
        self._steps = np.empty(0, np.int64)
        self._elapsed = np.empty(0, np.float64)
        self._columns: dict[str, Numbers] = {}
        self._last_time: float | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def steps(self) -> NDArray[np.int64]:
        """The steps, ascending."""
        return self._steps[: self._count]

    @property
    def elapsed(self) -> Numbers:
        """Seconds of training at the end of each step: pauses between sessions are left out."""
        return self._elapsed[: self._count]

    @property
    def names(self) -> list[str]:
        """The metrics there are, in the order in which they were first told."""
        return list(self._columns)

    @property
    def last_step(self) -> int:
        """0 where there is none."""
        return int(self._steps[self._count - 1]) if self._count else 0

    def column(self, name: str) -> Numbers:
        """A metric at each step; see NOT_A_NUMBER. Raises KeyError for one that was never told."""
        return self._columns[name][: self._count]

    def interrupt(self) -> None:
        """What follows is another session: the time until its first step is not training."""
        self._last_time = None

    def add(self, events: Sequence[Event]) -> None:
        """Take ``metric`` events with ascending steps. Where they begin before the last step, the last word counts."""
        if not events:
            return
        self._cut(events[0]["step"])
        start, self._count = self._count, self._count + len(events)
        self._make_room()
        self._steps[start : self._count] = [event["step"] for event in events]
        self._elapsed[start : self._count] = self._times(events, start)
        for name in self._names_in(events):
            self._columns[name][start : self._count] = [_value(event.get(name)) for event in events]

    def _times(self, events: Sequence[Event], start: int) -> Numbers:
        times = np.array([number(event.get("time")) or 0.0 for event in events])
        before = float(self._elapsed[start - 1]) if start else 0.0
        since = (
            times[0] - (number(events[0].get("step_ms")) or 0.0) / 1000 if self._last_time is None else self._last_time
        )
        self._last_time = float(times[-1])
        return np.maximum.accumulate(np.maximum(times - since, 0.0)) + before

    def _names_in(self, events: Sequence[Event]) -> list[str]:
        """All known metrics and those that are new in these events."""
        told: dict[str, None] = {}
        for event in events:
            told.update(dict.fromkeys(event))
        for name in told:
            known = name in self._columns or name in _NOT_METRICS or len(self._columns) == MOST_METRICS
            if not known and _NAME.fullmatch(name) and not all(math.isnan(_value(event.get(name))) for event in events):
                self._columns[name] = np.full(len(self._steps), math.nan)
        return list(self._columns)

    def _make_room(self) -> None:
        if self._count <= len(self._steps):
            return
        more = max(1024, self._count - len(self._steps), len(self._steps) // 2)
        self._steps = np.concatenate([self._steps, np.zeros(more, np.int64)])
        self._elapsed = np.concatenate([self._elapsed, np.zeros(more)])
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate([column, np.full(more, math.nan)])

    def _cut(self, step: int) -> None:
        """Take what was done from this step on out of the curve: it is done again."""
        keep = int(np.searchsorted(self.steps, step))
        if keep == self._count:
            return
        if "loss" in self._columns:
            part = slice(keep, self._count, max(1, (self._count - keep) // _OVERLAP_POINTS))
            columns = self._steps[part].copy(), self._elapsed[part].copy(), self._columns["loss"][part].copy()
            self.overlaps = [*self.overlaps, Overlap(*columns)][-MOST_OVERLAPS:]
        self._count = keep
        self.interrupt()


def number(value: Any) -> float | None:
    """A finite number; events say NaN and infinity in words."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _value(value: Any) -> float:
    if type(value) is float:  # by far the most
        return value
    if value in ("nan", "inf", "-inf"):
        return NOT_A_NUMBER
    found = number(value)
    return math.nan if found is None else found
