"""The numbers of every step, told in small batches so that no step waits for a file."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from typing import Any

import torch

from trainer.devices import peak_memory_bytes
from trainer.late_numbers import Read
from trainer.runs.events import EventSink

EVENT_SECONDS = 0.2
LOG_SECONDS = 10.0

_log = logging.getLogger("trainer")


@dataclass(frozen=True)
class Step:
    """What is known of a step before its numbers are."""

    step: int
    learning_rate: float
    other_learning_rates: dict[str, float]
    limits_norms: bool


def values_of(read: Read[Step], device: torch.device) -> dict[str, float]:
    """The metrics of a step by their names. Its ``read.numbers`` are loss, length of the gradient, layers shortened."""
    loss, grad_norm, layers_scaled = read.numbers
    values = {"loss": loss, "lr": read.facts.learning_rate, "grad_norm": grad_norm, "step_ms": round(read.step_ms, 3)}
    for name, rate in read.facts.other_learning_rates.items():
        values[f"lr_{re.sub(r'[^a-z0-9]+', '_', name)}"] = rate
    if read.facts.limits_norms:
        values["layers_scaled"] = int(layers_scaled)
    if (peak := peak_memory_bytes(device)) is not None:
        values["vram_bytes"] = peak
    return values


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
