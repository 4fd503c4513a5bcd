"""Replays of runs: at each moment the time left as it is estimated, and as it then really was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.pace import Pace, epochs_by, seconds_left

Event = dict[str, Any]

_KINDS = {"s": "state", "m": "metric", "v": "validation", "c": "checkpoint", "p": "sample"}
_MORE = {"s": ("state",), "p": ("index",)}
_RESTING = ("paused", "stopped", "failed", "finished")
_AT_ONCE_S = 0.02
_LOOKS = 200


@dataclass(frozen=True)
class Moment:
    """A look at a run: its step, the time left as estimated and as it was, and the whole time of the run."""

    step: int
    estimate: float
    truth: float
    whole: float

    @property
    def error(self) -> float:
        """Relative to the time that was left."""
        return abs(self.estimate - self.truth) / max(self.truth, 1e-9)


@dataclass(frozen=True)
class Recording:
    """A real run of the demo model: its rhythms, the batches of an epoch, and when what happened."""

    settings: Config
    batches: int
    events: list[Event]


def read_recording(path: Path) -> Recording:
    """Recordings hold kind, step and milliseconds since the event before, of the run's own computing time.

    The computing time of the process stands for the clock, so that other programs of that machine do not count.
    """
    told, time, events = json.loads(path.read_text()), 0.0, []
    for kind, step, passed_ms, *more in told["events"]:
        time += passed_ms / 1000
        event: Event = {"type": _KINDS[kind], "step": step, "time": time}
        events.append(event | dict(zip(_MORE.get(kind, ()), more, strict=True)))
    return Recording(Config.model_validate({"name": path.stem, **told["settings"]}), told["batches"], events)


def replay(events: Sequence[Event], config: Config, batches: int | None = None) -> list[Moment]:
    """Looks between tellings, from a tenth of the run to its end; a run that was extended has two ends.

    After every preview, checkpoint and validation, and after some two hundred of the steps.


    Time in which the run rested does not count: nobody can know how long somebody pauses.
    """
    clock = list(_working_clock(events))
    begun = next(time for event, time in zip(events, clock, strict=True) if event.get("state") == "training")
    ends = [index for index, event in enumerate(events) if event.get("state") == "finished"]
    pace, moments, every = Pace(), [], 1 + len(events) // _LOOKS
    for index, event in enumerate(events):
        pace.take([event])
        end = next((end for end in ends if end > index), None)
        if end is None or event["type"] == "state" or clock[index + 1] - clock[index] <= _AT_ONCE_S:
            continue
        if event["type"] == "metric" and event["step"] % every:
            continue
        max_steps = events[end]["step"]
        costs = pace.costs(config, max_steps - pace.place.step)
        if costs is None or pace.place.step < max_steps / 10:
            continue
        estimate = seconds_left(config, costs, pace.place, max_steps, epochs_by(config, max_steps, batches))
        moments.append(Moment(pace.place.step, estimate, clock[end] - clock[index], clock[end] - begun))
    return moments


def _working_clock(events: Sequence[Event]) -> Iterator[float]:
    """Seconds in which the run worked, at each event."""
    clock, before, resting = 0.0, events[0]["time"], False
    for event in events:
        if not resting:
            clock += event["time"] - before
        before = event["time"]
        if event["type"] == "state":
            resting = event["state"] in _RESTING or (resting and event["state"] != "training")
        yield clock
