"""Which parameters learn at which rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from trainer.config import TrainSettings


@dataclass(frozen=True, eq=False)
class Trainable:
    """One parameter that learns.

    Attributes:
        parameter: float32, until ``Learning`` brings it into the run's format.
        part: ``unet``, ``text_encoder`` ...
        is_up: whether it is the up factor of a LoRA (``B`` in ``B A``), for LoRA+.
        rate_factor: what the part's learning rate is multiplied with, from ``lora.block_lrs``.
    """

    parameter: nn.Parameter
    part: str
    is_up: bool = False
    rate_factor: float = 1.0


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters with one learning rate. ``name`` tells them apart: ``unet``, ``unet up``, ``unet x0.5``."""

    name: str
    learning_rate: float
    parameters: list[nn.Parameter]


def parameter_groups(trainables: Iterable[Trainable], settings: TrainSettings) -> list[ParameterGroup]:
    """The groups of what learns: parts in their order, in each the plain rate first; in a group the given order.

    LoRA+ (Hayou et al. 2024, 2402.12354, section 4): up factors learn ``loraplus_lr_ratio`` times as fast.

    The parameters of groups that do not learn are frozen: no gradient is computed for them.
    """
    ratio = settings.loraplus_lr_ratio
    members: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    for item in trainables:
        key = (item.part, ratio if item.is_up else 1.0, item.rate_factor)
        members.setdefault(key, []).append(item.parameter)
    parts = list(dict.fromkeys(part for part, _, _ in members))
    order = sorted(members, key=lambda key: (parts.index(key[0]), key[1] != 1, key[2] != 1))
    groups = [
        ParameterGroup(
            name=part + (" up" if up != 1 else "") + (f" x{factor:g}" if factor != 1 else ""),
            learning_rate=learning_rate_of(part, settings) * up * factor,
            parameters=members[part, up, factor],
        )
        for part, up, factor in order
    ]
    moving = learning_groups(groups)
    for group in groups:
        for parameter in group.parameters:
            parameter.requires_grad_(group in moving)
    return groups


def learning_groups(groups: list[ParameterGroup]) -> list[ParameterGroup]:
    """Those with a rate above 0; all where none has one, as a run may be there to measure its losses only."""
    return [group for group in groups if group.learning_rate > 0] or groups


def learning_rate_of(part: str, settings: TrainSettings) -> float:
    """The learning rate of a part: the text encoder may have its own, and zero is one."""
    if part.startswith("text_encoder") and settings.text_encoder_learning_rate is not None:
        return settings.text_encoder_learning_rate
    return settings.learning_rate
