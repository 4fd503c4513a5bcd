"""What a run's settings ask of the device it is on: what is done another way there, and what is refused. Never torch.

Another way is taken where it leaves the result the same but for rounding; what would learn something else is refused.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.accelerators import FEATURES, Features, Kind
from trainer.config import Config, TrainSettings
from trainer.config_training import PAGED
from trainer.errors import Problem, UserError
from trainer.optimizer_classes import FIELD, optimizer_problems
from trainer.plan_fixes import changed

EIGHT_BITS_ON_CPUS = (0, 50)
"""The first version of bitsandbytes whose AdamW 8-bit is relied on without a GPU."""


@dataclass(frozen=True)
class AnotherWay(Problem):
    """A setting that the device cannot follow, and the values by dotted config name that are taken in place of it."""

    changes: dict[str, Any] = field(default_factory=dict)


def suited(
    config: Config, kind: Kind, allowed_optimizers: Sequence[str], warn: Callable[[str, str, str], None]
) -> Config:
    """The settings as a device can follow them.

    Args:
        config: of the run.
        kind: of the device.
        allowed_optimizers: classes that the user lets configs name.
        warn: is told code, message and hint of each setting that is followed another way.

    Raises:
        UserError: what the device cannot do, and optimizers that are not installed or not allowed; all at once.
    """
    problems = [*refusals(config, kind), *optimizer_problems(config.train, allowed_optimizers)]
    if problems:
        raise UserError.many(problems)
    changes: dict[str, Any] = {}
    for each in other_ways(config, kind):
        warn(each.code, each.message, each.hint)
        changes |= each.changes
    return changed(config, changes) if changes else config


def other_ways(config: Config, kind: Kind) -> Iterator[AnotherWay]:
    """What the settings ask for and the device does another way, with the same result."""
    features, train = FEATURES[kind], config.train
    if config.model.offload and not features.offloads:
        why = "whose memory is the machine's own" if not features.own_memory else "without copies beside computations"
        message = f"model.offload: {config.model.offload:g} is given, and this is {_a(features)} {why}."
        hint = "The run goes on without it: all blocks stay where they are."
        yield AnotherWay("device.offload", message, hint, "model.offload", {"model.offload": 0.0})
    if train.optimizer == "adamw" and train.optimizer_args.get("fused") and not features.fused_adamw:
        name = "train.optimizer_args"
        message = f"{name}: fused is given, and on {_a(features)} there is no fused AdamW that leaves bad steps out."
        hint = "AdamW is computed by single operations: the result is the same but for rounding."
        changes = {name: {key: value for key, value in train.optimizer_args.items() if key != "fused"}}
        yield AnotherWay("device.fused", message, hint, name, changes)


def refusals(config: Config, kind: Kind) -> Iterator[Problem]:
    """What the settings ask for, the device cannot do, and anything else would learn otherwise."""
    features, train = FEATURES[kind], config.train
    if not features.loss_scaling:
        if train.mixed_precision == "fp16":
            yield _refused(features, "train.mixed_precision", "fp16", "scales losses, as it needs", "auto, bf16 and no")
        if train.lora_precision == "fp16":
            yield _refused(features, "train.lora_precision", "fp16", "scales losses, as it needs", "float32 and bf16")
    if not features.fp8 and config.model.quantize == "fp8":
        yield _refused(features, "model.quantize", "fp8", "has such numbers", "none, int8 and nf4")
    if not features.deterministic and train.deterministic:
        yield _refused(features, "train.deterministic", "true", "is known to compute the same bits each time", "false")
    yield from _optimizer_refusals(train, kind)


def _optimizer_refusals(train: TrainSettings, kind: Kind) -> Iterator[Problem]:
    features, name = FEATURES[kind], train.optimizer
    if name in PAGED and not features.paged_optimizers:
        message = f"{FIELD}: {name} moves its averages between a GPU and the machine; {_a(features)} does not do so, "
        message += f"only {_kinds(lambda each: each.paged_optimizers)}."
        yield Problem("optimizer.needs_gpu", message, "Use adamw.", FIELD)
    elif name == "adamw8bit" and not features.eight_bit_optimizers:
        allowed = _kinds(lambda each: each.eight_bit_optimizers)
        message = f"{FIELD}: adamw8bit has no kernels for {_a(features)}, only for {allowed}."
        yield Problem("optimizer.needs_gpu", message, "Use adamw.", FIELD)
    elif name == "adamw8bit" and kind == "cpu" and _bitsandbytes_is_older(EIGHT_BITS_ON_CPUS):
        message = f"{FIELD}: adamw8bit needs an NVIDIA GPU, or bitsandbytes 0.50 and newer; there is neither."
        yield Problem("optimizer.needs_gpu", message, "Use adamw, or install a newer bitsandbytes.", FIELD)


def _refused(features: Features, name: str, given: str, lacks: str, allowed: str) -> Problem:
    verb = "are" if " and " in allowed else "is"
    message = f"{name}: {given} is given, and no {features.name} {lacks}; allowed {verb} {allowed}."
    return Problem("device.lacks", message, "Change it, or train on another device: docs/devices.md.", name)


def _kinds(have: Callable[[Features], bool]) -> str:
    return " and ".join(f"{_a(features)}" for features in FEATURES.values() if have(features))


def _a(features: Features) -> str:
    return f"{'an' if features.name[0] in 'AIN' else 'a'} {features.name}"


def _bitsandbytes_is_older(least: tuple[int, int]) -> bool:
    """Whether it is there, and too old; where it is not there something else says so."""
    try:
        major, minor = importlib.metadata.version("bitsandbytes").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return False
    return (int(major), int(minor)) < least
