"""How far an extraction is: layers done, and the time left by the work that they and the others are."""

from __future__ import annotations

import time
from itertools import accumulate

from trainer.runs.events import EventSink

_SECONDS_BETWEEN = 0.5


class ExtractProgress:
    """Tells of layers as they are done, twice a second at most.

    Args:
        work: how much each layer is, in any unit, in their order.
        events: who is told.
    """

    def __init__(self, work: list[int], events: EventSink) -> None:
        self._done_by = list(accumulate(work))
        self._events = events
        self._began = time.monotonic()
        self._told = -_SECONDS_BETWEEN

    def tell(self, number: int) -> None:
        """Layer ``number`` is done."""
        now, total = time.monotonic(), len(self._done_by)
        if now - self._told < _SECONDS_BETWEEN and number + 1 < total:
            return
        self._told = now
        left = (now - self._began) * (self._done_by[-1] / self._done_by[number] - 1)
        self._events.emit("progress", what="extracting", done=number + 1, total=total, seconds_left=round(left, 1))
