"""How long a run still takes, from what its steps and the pauses between them took so far. No gradio in here."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Sequence

from trainer.config import Config
from trainer.rhythm import Rhythm, rhythms_of
from trainer.runs.events import Event
from ui.metric_store import number

WINDOW = 300
"""Steps that the speed is taken from."""
_AT_ONCE_S = 0.02
"""Steps are told several at a time; those with times as near as this belong together."""
_FORWARDS_PER_STEP = 3
"""A training step costs about as much as three passes without gradients."""

Pause = str
PAUSES: tuple[Pause, ...] = ("sample", "checkpoint", "validation")


class Pace:
    """Learns from events in the order of the file.

    What a preview, a checkpoint or a validation took is the time since the event before it: the trainer tells all
    steps before it begins one of them.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._fresh = True
        self._first: float | None = None
        self._steps: deque[float] = deque(maxlen=WINDOW)
        self._pauses: dict[Pause, dict[int, float]] = {kind: {} for kind in PAUSES}

    @property
    def step_seconds(self) -> float | None:
        """Seconds of one step, without pauses; None before there are two."""
        total = sum(self._steps)
        return total / len(self._steps) if len(self._steps) > 1 and total > 0 else None

    def steps(self, events: Sequence[Event]) -> None:
        """Take ``metric`` events without others between them."""
        if len(events) > WINDOW:
            self._last = None
        for event in events[-WINDOW - 1 :]:
            time = number(event.get("time"))
            if time is None:
                continue
            if self._fresh:
                self._first, self._fresh = time, False
            warming_up = self._first is not None and time - self._first <= _AT_ONCE_S
            if self._last is not None and not warming_up:
                self._steps.append(max(0.0, time - self._last))
            self._last = time

    def other(self, event: Event, step: int) -> None:
        """Take any other event."""
        time, kind = number(event.get("time")), event.get("type")
        if time is None:
            return
        if kind == "state":  # the first steps of a session compile and fill caches: no measure
            self._steps.clear()
            self._fresh = True
        elif kind in self._pauses and self._last is not None:
            rounds = self._pauses[str(kind)]
            rounds[step] = rounds.get(step, 0.0) + max(0.0, time - self._last)
        self._last = time

    def seconds_left(self, step: int, max_steps: int, config: Config | None, epoch: int = 0) -> float | None:
        """Until the end, with all that is still to be drawn, saved and validated; None while nothing is known."""
        seconds = self.step_seconds
        if seconds is None or step >= max_steps:
            return None
        left = (max_steps - step) * seconds
        if config is None:
            return left
        for kind, rhythm in _rhythms(config).items():
            times = rhythm.count(step + 1, max_steps - 1, _epochs_done(config, step, max_steps, epoch))
            times += 1 if rhythm.ever or kind == "checkpoint" else 0  # the end saves, validates and draws
            left += times * self._pause_seconds(kind, config, seconds)
        return left

    def _pause_seconds(self, kind: Pause, config: Config, step_seconds: float) -> float:
        rounds = list(self._pauses[kind].values())[-5:]
        if rounds:
            return statistics.median(rounds)
        return _drawing_steps(config) * step_seconds if kind == "sample" else 0.0


def _rhythms(config: Config) -> dict[Pause, Rhythm]:
    rhythms = rhythms_of(config)
    validates = config.validation.split > 0 or config.validation.path is not None
    return {
        "sample": rhythms.sampling if config.samples.prompts else Rhythm(0),
        "validation": rhythms.validating if validates else Rhythm(0),
        "checkpoint": rhythms.saving,
    }


def _epochs_done(config: Config, step: int, max_steps: int, epoch: int) -> Callable[[int], int]:
    """Epochs behind a number of steps: exactly where the run's length is given in epochs, else by those so far."""
    epochs, steps = (config.train.epochs, max_steps) if config.train.epochs else (epoch, step)
    return lambda at: int(at * epochs / steps) if steps else 0


def _drawing_steps(config: Config) -> float:
    """What a round of previews costs in training steps, by the number of passes and pixels, before one was drawn."""
    train = config.train
    pictures = train.batch_size * train.gradient_accumulation_steps
    passes = sum(prompt.steps * (2 if prompt.guidance > 1 else 1) for prompt in config.samples.prompts)
    return passes / (_FORWARDS_PER_STEP * pictures)
