"""What is measured of a checkpoint, and how. Never torch."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from trainer.config_base import Section, setting
from trainer.config_io import parse_section

Metric = Literal["validation", "drift", "similarity", "nearest"]
METRICS: tuple[Metric, ...] = get_args(Metric)

GENERAL_PROMPTS = ("", "a photo of a person", "a landscape with trees", "a house in a street", "a drawing of an animal")
"""What a LoRA has no business with: drift is measured on these beside the run's own prompts without their trigger."""
PROBE_STEPS = 10
"""Denoising steps of the pictures that drift is measured on: they need to be plausible, not good."""
MOST_VALIDATED = 64
"""Training pictures that the loss is measured on where none are held out."""


class EvaluationSettings(Section):
    """How checkpoints are evaluated."""

    metrics: list[Metric] = setting(["validation", "drift", "nearest"], "Measures", min_length=1)
    """`validation`: the loss on held-out pictures, always with the same noise. `drift`: how far prompts without the
    trigger move away from the base model. `nearest`: which training picture each picture drawn is nearest to.
    `similarity`: how alike pictures drawn and training pictures are, which needs a model that looks at pictures."""
    model: str | None = setting(None, "Model that looks at pictures", min_length=1)
    """Folder or Hugging Face id of a CLIP or DINOv2 model, for `similarity`. CLIP also tells how well prompts are
    followed."""
    pictures: int = setting(4, "Pictures per checkpoint", ge=1, le=256)
    """Drawn with the run's preview prompts in turn, or with captions of the training pictures where it has none."""
    steps: int | None = Field(None, ge=1, le=1000)
    """Denoising steps; empty for those of the prompts."""
    drift_prompts: list[str] = setting([], "Prompts for drift")
    """Prompts without the trigger; empty for general ones and the run's own without their trigger."""

    @field_validator("metrics")
    @classmethod
    def _once_each(cls, metrics: list[Metric]) -> list[Metric]:
        return [metric for metric in METRICS if metric in metrics]

    @field_validator("model")
    @classmethod
    def _without_spaces(cls, model: str | None) -> str | None:
        return model.strip() or None if model else None

    @model_validator(mode="after")
    def _similarity_needs_a_model(self) -> EvaluationSettings:
        if "similarity" in self.metrics and self.model is None:
            raise ValueError("similarity needs a model that looks at pictures: set model, or leave similarity out")
        return self

    @property
    def draws(self) -> bool:
        """Whether pictures are drawn of each checkpoint."""
        return bool({"similarity", "nearest"} & set(self.metrics))


def parse_evaluation(values: dict[str, Any]) -> EvaluationSettings:
    """Settings of plain values, the rest as by default; a model adds ``similarity``. Raises UserError."""
    given = {name: value for name, value in values.items() if value is not None}
    settings = parse_section(EvaluationSettings, given)
    if settings.model and "metrics" not in given:
        return settings.model_copy(update={"metrics": list(METRICS)})
    return settings
