"""How the learning rate goes over a run, through diffusers' own schedules."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.optimization import get_scheduler

from trainer.config import TrainSettings


def learning_rate_factor(settings: TrainSettings, max_steps: int) -> Callable[[int], float]:
    """What the learning rate is multiplied with in step 0, 1, ... of ``max_steps``.

    A function of the step alone: a resumed run needs no scheduler state, and an extended one follows the longer
    schedule from where it is. As in diffusers, the first of several warm-up steps has factor 0.
    """
    name = settings.lr_scheduler
    if name == "constant" and settings.lr_warmup_steps:
        name = "constant_with_warmup"  # diffusers' "constant" would ignore the warm-up
    # a learning rate of 1 makes the schedule's rate the factor; polynomial refuses to end above its start
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=settings.lr_warmup_steps, num_training_steps=max_steps)
    return schedule.lr_lambdas[0]


def set_learning_rate(optimizer: torch.optim.Optimizer, base_rates: list[float], factor: float) -> None:
    """Give every parameter group its base rate times ``factor``."""
    for group, base_rate in zip(optimizer.param_groups, base_rates, strict=True):
        group["lr"] = base_rate * factor
