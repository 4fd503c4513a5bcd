"""How the learning rate goes over a run: factors of it by step, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainer.config import LrScheduler, TrainSettings
from trainer.config_training import CONSTANT

if TYPE_CHECKING:  # the plan draws the curve without loading torch
    import torch

ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4
"""torch's OneCycleLR: share of the run that rises, and the factors at its ends."""


def learning_rate_factor(settings: TrainSettings, max_steps: int) -> Callable[[int], float]:
    """What the learning rate is multiplied with in step 0, 1, ... of ``max_steps``.

    A function of the step alone: a resumed run needs no scheduler state, and an extended one follows the longer
    schedule from where it is. As in diffusers, the first of several warm-up steps has factor 0 and the step behind
    the last one would reach the end of the curve.
    """
    warmup = steps_of(settings.lr_warmup_steps, max_steps)
    if settings.lr_scheduler == "one_cycle":
        return _one_cycle(warmup or ONE_CYCLE_RISE * max_steps, max_steps)
    begin = warmup  # of the fall
    if settings.lr_decay_steps is not None:
        begin = max(warmup, max_steps - steps_of(settings.lr_decay_steps, max_steps))
    lowest = 1.0 if settings.lr_scheduler in CONSTANT else settings.lr_min_ratio

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        progress = min(1.0, max(0, step - begin) / max(1, max_steps - begin))
        return lowest + (1 - lowest) * CURVES[settings.lr_scheduler](progress, settings)

    return factor


def steps_of(steps_or_share: int | float, max_steps: int) -> int:
    """A number of steps that may be given as a share of the run, rounded to whole steps."""
    return steps_or_share if isinstance(steps_or_share, int) else round(steps_or_share * max_steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, base_rates: list[float], factor: float) -> None:
    """Give every parameter group its base rate times ``factor``."""
    for group, base_rate in zip(optimizer.param_groups, base_rates, strict=True):
        group["lr"] = base_rate * factor


def _cosine(progress: float, settings: TrainSettings) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2016, 1608.03983, eq. 5, one period)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def _cosine_with_restarts(progress: float, settings: TrainSettings) -> float:
    """``lr_num_cycles`` half cosines one after another (the same, with restarts)."""
    return 0.0 if progress >= 1 else _cosine(settings.lr_num_cycles * progress % 1, settings)


def _rex(progress: float, settings: TrainSettings) -> float:
    """``(1 - z) / (1/2 + (1 - z) / 2)``: holds on longer than a line (Chen et al. 2021, 2107.04197, section 4)."""
    return (1 - progress) / (0.5 + 0.5 * (1 - progress))


def _one_cycle(rise_steps: float, max_steps: int) -> Callable[[int], float]:
    """Up and down again on cosines, as torch's OneCycleLR (Smith & Topin 2017, 1708.07120)."""
    peak = max(1.0, rise_steps - 1)

    def factor(step: int) -> float:
        if step <= peak:
            return _between(ONE_CYCLE_START, 1.0, step / peak)
        return _between(1.0, ONE_CYCLE_END, min(1.0, (step - peak) / max(1.0, max_steps - 1 - peak)))

    return factor


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


CURVES: dict[LrScheduler, Callable[[float, TrainSettings], float]] = {
    "constant": lambda progress, settings: 1.0,
    "constant_with_warmup": lambda progress, settings: 1.0,
    "linear": lambda progress, settings: 1 - progress,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": lambda progress, settings: (1 - progress) ** settings.lr_power,
    "rex": _rex,
}
"""From 1 at progress 0 to 0 at progress 1; ``one_cycle`` has a rise of its own."""
