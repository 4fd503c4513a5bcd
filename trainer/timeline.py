"""What happens when in a run: previews, validation and saving on a time line, and the learning rate. Never torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.config import Config
from trainer.rhythm import Rhythm, rhythms_of
from trainer.schedulers import learning_rate_factor, steps_of

MOST_MARKS = 200
"""Times that are told one by one, and points of the learning rate's curve; more cannot be seen."""


@dataclass(frozen=True)
class Marks:
    """When one kind of thing happens: ``count`` times in all, and the steps, thinned out where they are many."""

    what: str
    count: int
    steps: list[int]


@dataclass(frozen=True)
class Timeline:
    """A run from its first step to its last.

    Attributes:
        marks: previews, validations and checkpoints; those that never happen are left out.
        epoch_steps: after how many steps an epoch is over, as a number with a fraction.
        learning_rate: (step, rate) as a run tells them, step 0 being the first one's.
    """

    marks: list[Marks]
    epoch_steps: float
    learning_rate: list[tuple[int, float]]


def timeline(config: Config, max_steps: int, batches: int, *, validates: bool) -> Timeline:
    """What is due when.

    Args:
        config: the run's settings.
        max_steps: optimizer steps of the run.
        batches: per epoch.
        validates: whether there are pictures to validate on.
    """
    accumulation = config.train.gradient_accumulation_steps
    rhythms, end = rhythms_of(config), {max_steps}

    def due(rhythm: Rhythm) -> set[int]:
        return due_steps(rhythm, max_steps, batches, accumulation)

    saves = due(rhythms.saving) | end
    validations = {0} | due(rhythms.validating) | end if validates else set()
    previews = due(rhythms.sampling) | end if rhythms.sampling.ever else set()
    if config.samples.at_start:
        previews.add(0)
    kinds = {"previews": previews if config.samples.prompts else set(), "validation": validations, "checkpoints": saves}
    return Timeline(
        marks=[Marks(what, len(steps), _thinned(sorted(steps))) for what, steps in kinds.items() if steps],
        epoch_steps=round(batches / accumulation, 2),
        learning_rate=_curve(config, max_steps),
    )


def due_steps(rhythm: Rhythm, max_steps: int, batches: int, accumulation: int) -> set[int]:
    """The steps before the last one after which something is due: ``Rhythm.due`` without trying each of them."""
    steps = {step for step in rhythm.also_at if 0 < step < max_steps}
    if rhythm.every_epochs is not None:
        ends = range(rhythm.every_epochs * batches, max_steps * accumulation, rhythm.every_epochs * batches)
        return steps | {step for end in ends if 0 < (step := math.ceil(end / accumulation)) < max_steps}
    return steps | (set(range(rhythm.every_steps, max_steps, rhythm.every_steps)) if rhythm.every_steps else set())


def _curve(config: Config, max_steps: int) -> list[tuple[int, float]]:
    train = config.train
    factor = learning_rate_factor(train, max_steps)
    evenly = {round(index * (max_steps - 1) / MOST_MARKS) for index in range(MOST_MARKS + 1)}
    bends = {min(max_steps - 1, steps_of(train.lr_warmup_steps, max_steps))}
    return [(step, train.learning_rate * factor(step)) for step in sorted(evenly | bends)]


def _thinned(steps: list[int]) -> list[int]:
    """At most ``MOST_MARKS`` of them, the first and the last among those."""
    if len(steps) <= MOST_MARKS:
        return steps
    last = len(steps) - 1
    return [steps[round(index * last / (MOST_MARKS - 1))] for index in range(MOST_MARKS)]
