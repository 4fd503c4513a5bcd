"""When a run saves, validates and draws: every so many steps or epochs, and at steps that were named. Never torch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from trainer.config import Config


@dataclass(frozen=True)
class Rhythm:
    """When one of the things that a run does between its steps is due.

    Attributes:
        every_steps: steps between two times; 0 for never.
        every_epochs: epochs between two times; when given, it wins over steps.
        also_at: further steps.
    """

    every_steps: int
    every_epochs: int | None = None
    also_at: Collection[int] = ()

    @property
    def ever(self) -> bool:
        """Whether it is done in the course of a run at all."""
        return bool(self.every_epochs or self.every_steps or self.also_at)

    def due(self, step: int, epochs_done: Callable[[int], int]) -> bool:
        """Whether it is due after ``step`` optimizer steps. Nothing is due before the first.

        A step may end in the middle of an epoch, as gradient accumulation runs on across its end: what is due at the
        end of an epoch is due after the first step that reaches it.

        Args:
            step: optimizer steps done.
            epochs_done: whole epochs behind a number of steps.
        """
        if step <= 0:
            return False
        if step in self.also_at:
            return True
        if self.every_epochs is not None:
            return epochs_done(step) // self.every_epochs > epochs_done(step - 1) // self.every_epochs
        return self.every_steps > 0 and step % self.every_steps == 0

    def count(self, first: int, last: int, epochs_done: Callable[[int], int]) -> int:
        """How often it is due between two steps, both included."""
        if last < first:
            return 0
        if self.every_epochs is not None:
            times = epochs_done(last) // self.every_epochs - epochs_done(first - 1) // self.every_epochs
        else:
            times = last // self.every_steps - (first - 1) // self.every_steps if self.every_steps > 0 else 0
        named = [step for step in set(self.also_at) if first <= step <= last]
        alone = Rhythm(self.every_steps, self.every_epochs)
        return times + sum(not alone.due(step, epochs_done) for step in named)

    def count_with_end(self, first: int, end: int, epochs_done: Callable[[int], int]) -> int:
        """Likewise up to the end of a run, at which what is done at all is done in any case."""
        return self.count(first, end - 1, epochs_done) + self.ever


@dataclass(frozen=True)
class Rhythms:
    """When a run draws previews, validates and saves."""

    sampling: Rhythm
    validating: Rhythm
    saving: Rhythm


def rhythms_of(config: Config) -> Rhythms:
    """Those that the settings ask for."""
    samples, validation, output = config.samples, config.validation, config.output
    return Rhythms(
        sampling=Rhythm(samples.every_steps, samples.every_epochs),
        validating=Rhythm(validation.every_steps, validation.every_epochs),
        saving=Rhythm(output.save_every_steps, output.save_every_epochs, output.save_at),
    )
