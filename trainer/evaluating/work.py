"""How much work an evaluation is, in passes of one picture through the denoiser. Never torch."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.config import Config
from trainer.evaluating.prompts import prompts_for_drift, prompts_to_draw
from trainer.evaluating.settings import PROBE_STEPS, EvaluationSettings

_GUIDED = 2
"""Passes of a denoising step: with the prompt, and without it."""


@dataclass(frozen=True)
class Work:
    """Passes by what they are for.

    Attributes:
        once: the base model's pictures that drift is measured on.
        validation: the validation loss of a checkpoint.
        drift: the drift of a checkpoint.
        picture: each picture that is drawn of a checkpoint, on average.
    """

    once: float
    validation: float
    drift: float
    picture: float

    def of_checkpoint(self, settings: EvaluationSettings) -> float:
        """What one checkpoint takes with these settings."""
        validation = self.validation if "validation" in settings.metrics else 0
        drift = self.drift if "drift" in settings.metrics else 0
        return validation + drift + (settings.pictures * self.picture if settings.draws else 0)


def work_of(config: Config, settings: EvaluationSettings, validated_pictures: int) -> Work:
    """The work of evaluating a run.

    Args:
        config: of the run.
        settings: of the evaluation; its choice of measures does not matter here.
        validated_pictures: how many the validation loss is of.
    """
    probes = len(prompts_for_drift(config, settings))
    timesteps = config.validation.timesteps
    drawn = prompts_to_draw(config, settings, [])
    return Work(
        once=probes * (settings.steps or PROBE_STEPS) * _GUIDED,
        validation=validated_pictures * timesteps,
        drift=probes * timesteps * _GUIDED,
        picture=sum(prompt.steps for prompt in drawn) / len(drawn) * _GUIDED,
    )
