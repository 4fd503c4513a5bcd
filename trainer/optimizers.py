"""Optimizers by the names of ``config.Optimizer``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.optimization import Adafactor

from trainer.config import Optimizer, TrainSettings
from trainer.errors import UserError
from trainer.parameter_groups import ParameterGroup

ParameterGroups = list[dict[str, Any]]


def make_optimizer(groups: list[ParameterGroup], settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer of the settings over named groups, each with its learning rate.

    Raises UserError for arguments the optimizer does not take, and where adamw8bit cannot run.
    """
    described = [
        {"params": group.parameters, "lr": group.learning_rate, "name": group.name}
        for group in groups
        if group.parameters
    ]
    try:
        return OPTIMIZERS[settings.optimizer](described, settings.optimizer_args)
    except (TypeError, ValueError) as error:
        message = f"train.optimizer_args: {settings.optimizer} does not take {settings.optimizer_args}: {error}."
        raise UserError("optimizer.arguments", message, "Correct or remove it.", "train.optimizer_args") from error


def _adamw(groups: ParameterGroups, arguments: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, **{"fused": True, **_tuples(arguments)})


def _adamw8bit(groups: ParameterGroups, arguments: dict[str, Any]) -> torch.optim.Optimizer:
    field = "train.optimizer"
    if not torch.cuda.is_available():
        message = f"{field}: adamw8bit needs an NVIDIA GPU, and there is none."
        raise UserError("optimizer.needs_gpu", message, "Use adamw.", field)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        message = f"{field}: adamw8bit needs the package bitsandbytes."
        raise UserError("optimizer.missing", message, "Install requirements-gpu.txt, or use adamw.", field) from error
    return AdamW8bit(groups, **_tuples(arguments))


def _adafactor(groups: ParameterGroups, arguments: dict[str, Any]) -> torch.optim.Optimizer:
    # With its own relative steps it would ignore the learning rate and the schedule: off unless asked for
    own_steps = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    return Adafactor(groups, **{**own_steps, **_tuples(arguments)})


def _sgd(groups: ParameterGroups, arguments: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, **_tuples(arguments))


def _tuples(arguments: dict[str, Any]) -> dict[str, Any]:
    """YAML has lists where optimizers take tuples (``betas``)."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}


OPTIMIZERS: dict[Optimizer, Callable[[ParameterGroups, dict[str, Any]], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "adafactor": _adafactor,
    "sgd": _sgd,
}
