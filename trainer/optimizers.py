"""Optimizers by the names of ``config.Optimizer``: how they are made, and what they have learned."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from trainer.config import Optimizer, TrainSettings
from trainer.config_training import CONSTANT, OWN_RATE
from trainer.devices import features_of
from trainer.errors import UserError
from trainer.graphs import is_capturing
from trainer.optimizer_classes import CLASS_FIELD, FIELD, OPTIMIZERS, class_path, optimizer_problems
from trainer.parameter_groups import ParameterGroup


@runtime_checkable
class ScheduleFree(Protocol):
    """An optimizer that trains at one point and gives another, the mean, as its result (Defazio 2024, 2405.15682)."""

    def train(self) -> None:
        """Put the point to train at into the parameters."""

    def eval(self) -> None:
        """Put the mean into the parameters."""


def make_optimizer(
    groups: list[ParameterGroup], settings: TrainSettings, allowed: Sequence[str] = ()
) -> torch.optim.Optimizer:
    """The optimizer of the settings over named groups, each with its learning rate.

    Raises UserError for arguments the optimizer does not take, and what ``optimizer_class`` raises.
    """
    described: list[dict[str, Any]] = [
        {"params": group.parameters, "lr": group.learning_rate, "name": group.name}
        for group in groups
        if group.parameters
    ]
    make = optimizer_class(settings, allowed)
    arguments = settings.optimizer_args
    if settings.optimizer != "custom":
        arguments = {**_usual_arguments(settings.optimizer, groups), **arguments}
    if settings.optimizer in OWN_RATE:
        _check_one_rate(settings.optimizer, {group.learning_rate for group in groups})
    try:
        with contextlib.redirect_stdout(sys.stderr):  # some tell their settings; stdout belongs to --json
            optimizer = make(described, **_tuples(arguments))
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = str(error) or "a value is out of range"
        message = f"train.optimizer_args: {settings.optimizer} does not take {settings.optimizer_args}: {reason}."
        raise UserError("optimizer.arguments", message, "Correct or remove it.", "train.optimizer_args") from error
    if isinstance(optimizer, ScheduleFree):
        optimizer.train()
    return optimizer


def optimizer_class(settings: TrainSettings, allowed: Sequence[str] = ()) -> type[torch.optim.Optimizer]:
    """The class of the settings' optimizer, imported.

    Args:
        settings: of the run.
        allowed: classes that the user lets configs name; nothing else is imported for ``custom``.

    Raises:
        UserError: not allowed, not installed, or not an optimizer.
    """
    if problems := list(optimizer_problems(settings, allowed)):
        raise UserError.many(problems)
    path = class_path(settings)
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        where = CLASS_FIELD if settings.optimizer == "custom" else FIELD
        message = f"{where}: {path} cannot be loaded: {error}."
        raise UserError("optimizer.broken", message, "Check the name and its package, or use adamw.", where) from error
    if settings.optimizer == "custom":
        _check_class(found, settings)
    return found


def effective_learning_rate(optimizer: torch.optim.Optimizer, number: int = 0) -> float:
    """The rate that the next step moves a group with: ``d * lr`` where the optimizer estimates a ``d``."""
    group = optimizer.param_groups[number]
    return group["lr"] * group.get("d", 1.0)


def leaves_out_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer's step can be left out by the device itself, see ``step_where``.

    The fused Adam and AdamW of torch: theirs are the kernels that look whether a gradient was found not to be finite.
    (Those of SGD leave its momentum without values when that happens in the first step.)
    """
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
        return False
    return all(group["fused"] for group in optimizer.param_groups)


def step_where(optimizer: torch.optim.Optimizer, wanted: Tensor, rates: Sequence[Tensor]) -> None:
    """The step of an optimizer that ``leaves_out_on_device``, without waiting for the device.

    Args:
        optimizer: with gradients.
        wanted: a scalar on the device; where it is false, weights and states stay what they are to the bit.
        rates: the groups' learning rates, scalars on the device.
    """
    groups = optimizer.param_groups
    before = [{"lr": group["lr"], "capturable": group["capturable"]} for group in groups]
    captured = is_capturing()
    for group, rate in zip(groups, rates, strict=True):
        group.update(lr=rate, capturable=captured)  # to fused kernels it is only a permission
    told: Any = optimizer
    told.found_inf = (~wanted).float()  # torch's own way to tell them, see torch.amp.GradScaler
    try:
        optimizer.step()
    finally:
        del told.found_inf
        for group, values in zip(groups, before, strict=True):
            group.update(values)


@contextlib.contextmanager
def averaged(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Inside, parameters hold the mean that a schedule-free optimizer keeps; others leave them as they are.

    Afterwards they are what they were to the last bit: the optimizer's own way back rounds, and a run must not depend
    on how often it was looked at.
    """
    if not isinstance(optimizer, ScheduleFree):
        yield
        return
    exact = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for parameter, value in zip(parameters, exact, strict=True):
                parameter.copy_(value)


def _usual_arguments(name: Optimizer, groups: list[ParameterGroup]) -> dict[str, Any]:
    """What an optimizer is given beside the settings, as far as it works where the parameters are."""
    usual = OPTIMIZERS[name].arguments
    devices = {parameter.device for group in groups for parameter in group.parameters}
    fused = all(features_of(device).fused_adamw for device in devices)
    return usual if fused else {key: value for key, value in usual.items() if key != "fused"}


def _check_class(found: Any, settings: TrainSettings) -> None:
    """Raise UserError unless a custom class is an optimizer that fits the schedule."""
    path = settings.optimizer_class
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        message = f"{CLASS_FIELD}: {path} is not a torch optimizer."
        hint = "Name a class derived from torch.optim.Optimizer."
        raise UserError("optimizer.not_one", message, hint, CLASS_FIELD)
    fits = settings.lr_scheduler in CONSTANT and settings.ema is None and settings.lora_precision == "float32"
    if issubclass(found, ScheduleFree) and not fits:
        message = f"{CLASS_FIELD}: {path} is schedule-free: it needs train.lr_scheduler constant, no train.ema and "
        message += "train.lora_precision float32."
        raise UserError("optimizer.schedule_free", message, "Change these.", "train.lr_scheduler")


def _check_one_rate(name: str, rates: set[float]) -> None:
    if len(rates - {0.0}) > 1:
        given = " and ".join(f"{rate:g}" for rate in sorted(rates))
        message = f"{FIELD}: {name} finds one learning rate for all groups; {given} are given."
        raise UserError(
            "optimizer.one_rate", message, "Give all parts the same rate, or 0, without block rates and LoRA+.", FIELD
        )


def _tuples(arguments: dict[str, Any]) -> dict[str, Any]:
    """YAML has lists where optimizers take tuples (``betas``)."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
