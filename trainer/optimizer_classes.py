"""Where optimizers come from, and whether a run may and can use the one it names. Never torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.config import Optimizer, TrainSettings
from trainer.errors import Problem

FIELD = "train.optimizer"
CLASS_FIELD = "train.optimizer_class"


@dataclass(frozen=True)
class OptimizerSource:
    """Where an optimizer comes from.

    Attributes:
        path: ``package.module.Class``.
        install: what to install where it is not there; empty for what always is.
        arguments: those that differ from the class's own defaults.
    """

    path: str
    install: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


OPTIMIZERS: dict[Optimizer, OptimizerSource] = {
    "adamw": OptimizerSource("torch.optim.AdamW", arguments={"fused": True}),
    "adamw8bit": OptimizerSource("bitsandbytes.optim.AdamW8bit", "bitsandbytes"),
    "paged_adamw": OptimizerSource("bitsandbytes.optim.PagedAdamW", "bitsandbytes"),  # Dettmers 2023, 2305.14314, 3
    "paged_adamw8bit": OptimizerSource("bitsandbytes.optim.PagedAdamW8bit", "bitsandbytes"),
    # with scale_parameter or its own relative steps, Adafactor would not keep to the learning rate and the schedule
    "adafactor": OptimizerSource(
        "transformers.optimization.Adafactor", arguments={"scale_parameter": False, "relative_step": False}
    ),
    "lion": OptimizerSource("lion_pytorch.Lion", "lion-pytorch"),  # Chen et al. 2023, 2302.06675
    "prodigy": OptimizerSource("prodigyopt.Prodigy", "prodigyopt"),  # Mishchenko & Defazio 2023, 2306.06101
    "schedule_free_adamw": OptimizerSource(
        "schedulefree.AdamWScheduleFree", "schedulefree"
    ),  # Defazio 2024, 2405.15682
    "dadapt_adam": OptimizerSource("dadaptation.DAdaptAdam", "dadaptation"),  # Defazio & Mishchenko 2023, 2301.07733
    "sgd": OptimizerSource("torch.optim.SGD"),
}
"""All but ``custom``, which is whatever class the user names and has allowed."""


def class_path(settings: TrainSettings) -> str:
    """``package.module.Class`` of the settings' optimizer."""
    return str(settings.optimizer_class) if settings.optimizer == "custom" else OPTIMIZERS[settings.optimizer].path


def optimizer_problems(settings: TrainSettings, allowed: Sequence[str]) -> Iterator[Problem]:
    """Why a run cannot use its optimizer, as far as that shows without importing anything.

    Args:
        settings: of the run.
        allowed: classes that the user lets configs name.
    """
    path = class_path(settings)
    if settings.optimizer == "custom" and path not in allowed:
        listing = ", ".join(allowed) or "none"
        message = f"{CLASS_FIELD}: {path} is not allowed to be loaded; allowed are: {listing}."
        yield Problem("optimizer.not_allowed", message, "If you trust it, add it on the Settings tab.", CLASS_FIELD)
        return
    package = path.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        install = package if settings.optimizer == "custom" else OPTIMIZERS[settings.optimizer].install
        message = f"{FIELD}: {settings.optimizer} needs the package {install}, which is not installed."
        hint = f"Install it with `.venv/bin/pip install {install}`, or use adamw."
        yield Problem("optimizer.missing", message, hint, FIELD)
