"""The numbers of every step, told in small batches so that no step waits for a file."""

from __future__ import annotations

import logging
import time
from typing import Any

from trainer.runs.events import EventSink

EVENT_SECONDS = 0.2
LOG_SECONDS = 10.0

_log = logging.getLogger("trainer")


class Metrics:
    """Collects what each step measured; every step becomes a ``metric`` event, a few become lines of the log."""

    def __init__(self, events: EventSink, max_steps: int) -> None:
        self._events = events
        self._max_steps = max_steps
        self._waiting: list[tuple[int, dict[str, Any]]] = []
        self._told = self._logged = time.monotonic()

    def add(self, step: int, **values: float) -> None:
        """Take a step's numbers; what is waiting is told when the last telling is a while ago."""
        self._waiting.append((step, values))
        now = time.monotonic()
        if now - self._told >= EVENT_SECONDS:
            self.flush()
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            _log.info("step %d/%d  %s", step, self._max_steps, numbers)

    def flush(self) -> None:
        """Tell all that is waiting."""
        for step, values in self._waiting:
            self._events.emit("metric", step, **values)
        self._waiting.clear()
        self._told = time.monotonic()
