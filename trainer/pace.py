"""How long a run still takes, from what its steps and the work between them took so far. Never torch.

The page, its queue and the plan ask here. What is left of a run is a list: steps, and at some of them a validation, a
checkpoint and previews, in this order; its end has all of them. Each takes what it took before.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from trainer.config import Config, Prompt
from trainer.data.buckets import resolutions
from trainer.rhythm import Rhythm, rhythms_of
from trainer.runs.events import Event, last_events

Kind: TypeAlias = Literal["validation", "checkpoint", "sample"]
KINDS: tuple[Kind, ...] = ("validation", "checkpoint", "sample")
"""What comes between steps, in its order; a sample is one picture."""
EpochsDone: TypeAlias = Callable[[int], int]
"""Whole epochs behind a number of steps."""

LOOKED_AT_STEPS = 2000
_ENOUGH_STEPS = 4
_KEPT_OVER_A_RESUME = 20
_WARM_UP_STEPS = 5  # of a session: they compile, choose kernels and fill caches
_ONE_HICCUP_IN = 200
_HALF_LIFE_SHARE, _HALF_LIFE_STEPS = 1 / 20, (50, 300)
_LOOKED_AT: dict[Kind, int] = {"validation": 6, "checkpoint": 6, "sample": 12}
_AT_ONCE_S = 0.02
"""Steps are told several at a time; those with times as near as this belong together."""
_STEP_PASSES = 3  # a step is like so many passes without gradients, as back takes twice as long as forth,
_DECODING_PASSES = 3  # the decoding of a picture like so many,
_CHECKPOINT_STEPS = 2  # and saving like so many steps
_TAIL_BYTES = 1_000_000
_LARGEST = 2**53


@dataclass(frozen=True)
class Costs:
    """What the parts of a run take, in seconds; None for what has not been seen.

    Attributes:
        step: an optimizer step.
        validation: a whole round of it.
        checkpoint: saving one.
        drawing: previews, for a pass over a pixel, see ``drawing_work``.
        beginning: from the start to training, and what the first steps of a session take beyond others.
    """

    step: float
    validation: float | None = None
    checkpoint: float | None = None
    drawing: float | None = None
    beginning: float | None = None


@dataclass(frozen=True)
class Place:
    """How far a run is.

    Attributes:
        step: optimizer steps done.
        done: how many of ``KINDS`` are behind it at this step.
        pictures: previews of this step that are drawn.
        begun: whether the session trains already.
    """

    step: int = 0
    done: int = 0
    pictures: int = 0
    begun: bool = False


class Pace:
    """Learns costs from a run's events, in the order of the file.

    What a preview, a checkpoint or a validation took is the time since the event before it: the trainer tells all steps
    before it begins one of them.

    Attributes:
        place: how far the run is.
    """

    def __init__(self) -> None:
        self.place = Place()
        self._last: float | None = None
        self._preparing: float | None = None
        self._ready: float | None = None
        self._before: list[float] = []
        self._first: list[float] = []
        self._steps: deque[float] = deque(maxlen=LOOKED_AT_STEPS)
        self._rounds: dict[Kind, deque[tuple[int, float]]] = {kind: deque(maxlen=_LOOKED_AT[kind]) for kind in KINDS}

    def take(self, events: Sequence[Event]) -> None:
        """Take what was told since the last time."""
        first = 0
        for index in [*(index for index, event in enumerate(events) if event["type"] != "metric"), len(events)]:
            if first < index:
                self._take_steps(events[first:index])
            if index < len(events):
                self._take_other(events[index])
            first = index + 1

    def costs(self, config: Config, steps_left: float = math.inf) -> Costs | None:
        """What the parts of this run take; None before a few steps are done.

        The speed is that of about as many steps as are left, but not of the very last ones alone: it may have changed
        in a long run, and each single step says little.
        """
        warm_up = min(_WARM_UP_STEPS, (len(self._first) + len(self._steps)) // 3)
        own = [*self._first[warm_up:], *self._steps]
        steps = [*self._before[len(own) :], *own]
        if len(steps) < _ENOUGH_STEPS:
            return None
        half_life = min(max(steps_left * _HALF_LIFE_SHARE, _HALF_LIFE_STEPS[0]), _HALF_LIFE_STEPS[1])
        works = dict(enumerate(drawing_work(config, prompt) for prompt in config.samples.prompts))
        drawn = [seconds / works[index] for index, seconds in self._rounds["sample"] if index in works]
        step = _typical(steps, half_life)
        longer = sum(max(0.0, seconds - step) for seconds in self._first[:warm_up])
        return Costs(
            step=step,
            validation=_typical_or_none([seconds for _, seconds in self._rounds["validation"]]),
            checkpoint=_typical_or_none([seconds for _, seconds in self._rounds["checkpoint"]]),
            drawing=_typical_or_none(drawn),
            beginning=None if self._ready is None else self._ready + longer,
        )

    def _take_steps(self, events: Sequence[Event]) -> None:
        """``metric`` events without others between them; those told at once share the time since the ones before."""
        told = events[-LOOKED_AT_STEPS - 1 :]
        times = np.array([time for event in told if (time := _time_of(event)) is not None])
        self.place = Place(_step_of(events[-1]), begun=True)
        if not len(times):
            return
        lasts = np.flatnonzero(np.diff(times, append=math.inf) > _AT_ONCE_S)
        counts = np.diff(lasts, prepend=-1)
        before = math.nan if self._last is None or len(told) < len(events) else self._last
        shares = np.repeat(np.diff(times[lasts], prepend=before) / counts, counts)
        seconds = np.maximum(shares[np.isfinite(shares)], 0.0).tolist()
        first = _WARM_UP_STEPS - len(self._first)
        self._first += seconds[:first]
        self._steps.extend(seconds[first:])
        self._last = float(times[-1])

    def _take_other(self, event: Event) -> None:
        """Any other event."""
        kind, step, time = event["type"], _step_of(event), _time_of(event)
        if kind == "state":
            self._take_state(str(event.get("state")), step, time)
        elif kind in KINDS:
            number = KINDS.index(kind)
            drawn = _count(event.get("index")) if kind == "sample" else 0
            self.place = (
                Place(step, number, drawn + 1, True) if kind == "sample" else Place(step, number + 1, begun=True)
            )
            if time is not None and self._last is not None:
                self._rounds[kind].append((drawn, max(0.0, time - self._last)))
        self._last = time if time is not None else self._last

    def _take_state(self, state: str, step: int, time: float | None) -> None:
        if state == "starting":
            # Little is kept, and replaced step by step: the device may be another one
            self._before = [*self._before, *self._first, *self._steps][-_KEPT_OVER_A_RESUME:]
            self._first.clear()
            self._steps.clear()
            self._rounds = {kind: deque([*rounds][-1:], rounds.maxlen) for kind, rounds in self._rounds.items()}
        elif state == "preparing":
            self._preparing = time
        elif state == "training" and self._preparing is not None and time is not None:
            self._ready, self._preparing = time - self._preparing, None
        self.place = Place(step, len(KINDS) if step else 0, begun=state == "training")


def pace_of(events_path: Path) -> Pace:
    """What the end of a run's events tells; nothing where there is no file."""
    pace = Pace()
    pace.take(last_events(events_path, _TAIL_BYTES))
    return pace


def seconds_left(config: Config, costs: Costs, place: Place, max_steps: int, epochs_done: EpochsDone) -> float:
    """Until the end, with all that is still to be drawn, saved and validated.

    Args:
        config: the run's settings.
        costs: what its parts take; what is not known of previews and saving is guessed.
        place: how far it is.
        max_steps: optimizer steps of the whole.
        epochs_done: whole epochs behind a number of steps.
    """
    left = max(0, max_steps - place.step) * costs.step + (0.0 if place.begun else costs.beginning or 0.0)
    for number, work in enumerate(_between_steps(config, costs)):
        here = number >= place.done and (work.due(place.step, max_steps, epochs_done) or place.pictures > 0)
        left += (here + work.times_after(place.step, max_steps, epochs_done)) * work.seconds
    drawn = sum(drawing_work(config, prompt) for prompt in config.samples.prompts[: place.pictures])
    return left - drawn * _drawing_seconds(config, costs)


def epochs_by(config: Config, max_steps: int, batches: int | None) -> EpochsDone:
    """Whole epochs behind a number of steps, by the batches of one; where these are not known, by the run's length."""
    if batches:
        return lambda step: step * config.train.gradient_accumulation_steps // batches
    epochs = config.train.epochs or 0
    return lambda step: step * epochs // max_steps if max_steps else 0


def drawing_work(config: Config, prompt: Prompt) -> float:
    """What it takes to draw a picture: passes of the denoiser, and decoding, times pixels."""
    width, height = resolutions(config.dataset)[0]
    passes = prompt.steps * (2 if prompt.guidance > 1 else 1) + _DECODING_PASSES
    return passes * (prompt.width or width) * (prompt.height or height)


def validation_guess(config: Config, step_seconds: float, pictures: int) -> float:
    """What a round of validation on so many pictures takes, by its passes, before there was one."""
    passes = pictures * config.validation.timesteps * config.validation.noises
    return passes * pass_seconds(config, step_seconds)


def pass_seconds(config: Config, step_seconds: float) -> float:
    """A pass of the denoiser without gradients for one picture, by what a step takes."""
    pictures = config.train.batch_size * config.train.gradient_accumulation_steps
    return step_seconds / (_STEP_PASSES * pictures)


@dataclass(frozen=True)
class _BetweenSteps:
    """One of ``KINDS`` in a run: when it is due, and what a round takes."""

    rhythm: Rhythm
    at_start: bool
    at_end: bool
    seconds: float

    def due(self, step: int, max_steps: int, epochs_done: EpochsDone) -> bool:
        if step == 0 or step >= max_steps:
            return self.at_end if step else self.at_start
        return self.rhythm.due(step, epochs_done)

    def times_after(self, step: int, max_steps: int, epochs_done: EpochsDone) -> int:
        if step >= max_steps:
            return 0
        return self.rhythm.count(step + 1, max_steps - 1, epochs_done) + self.at_end


def _between_steps(config: Config, costs: Costs) -> list[_BetweenSteps]:
    """In the order of ``KINDS``, as ``upkeep`` does it."""
    rhythms, samples = rhythms_of(config), config.samples
    validates = config.validation.split > 0 or config.validation.path is not None
    drawing = sum(drawing_work(config, prompt) for prompt in samples.prompts) * _drawing_seconds(config, costs)
    return [
        _BetweenSteps(rhythms.validating if validates else Rhythm(0), validates, validates, costs.validation or 0.0),
        _BetweenSteps(rhythms.saving, False, True, _checkpoint_seconds(costs)),
        _BetweenSteps(rhythms.sampling, samples.at_start, rhythms.sampling.ever, drawing),
    ]


def _drawing_seconds(config: Config, costs: Costs) -> float:
    """Of a pass over a pixel; before a preview was drawn, by what a step takes."""
    if costs.drawing is not None:
        return costs.drawing
    width, height = resolutions(config.dataset)[0]
    return pass_seconds(config, costs.step) / (width * height)


def _checkpoint_seconds(costs: Costs) -> float:
    return _CHECKPOINT_STEPS * costs.step if costs.checkpoint is None else costs.checkpoint


def _typical(seconds: Sequence[float], half_life: float = math.inf) -> float:
    """Their mean, the later ones counting more, where one in so many may be a hiccup: it counts like the next smaller.

    No median: batches of different sizes take different times, and all of them count.
    """
    values = np.array(seconds)
    hiccups = min(1 + len(values) // _ONE_HICCUP_IN, len(values) - 1)
    largest = np.partition(values, len(values) - 1 - hiccups)[len(values) - 1 - hiccups]
    weights = np.exp2(np.arange(1 - len(values), 1) / half_life)
    return float(np.average(np.minimum(values, largest), weights=weights))


def _typical_or_none(seconds: Sequence[float]) -> float | None:
    return _typical(seconds) if seconds else None


def _time_of(event: Event) -> float | None:
    time = event.get("time")
    return float(time) if isinstance(time, int | float) and math.isfinite(time) else None


def _step_of(event: Event) -> int:
    return _count(event.get("step"))


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < _LARGEST else 0
