"""Groups of parameters: what learns at which rate, and LoRA+."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.config import TrainSettings
from trainer.learning import Learning
from trainer.parameter_groups import Trainable, parameter_groups


def trainables() -> list[Trainable]:
    """Two layers of the UNet, the second at half the rate, and one of the text encoder."""
    return [
        Trainable(nn.Parameter(torch.ones(2)), part, is_up=is_up, rate_factor=factor)
        for part, factor in (("unet", 0.5), ("unet", 1.0), ("text_encoder", 1.0))
        for is_up in (False, True)
    ]


def test_one_group_for_each_part_by_default() -> None:
    items = [item for item in trainables() if item.rate_factor == 1]
    groups = parameter_groups(items, TrainSettings(learning_rate=1e-3))
    assert [(group.name, group.learning_rate) for group in groups] == [("unet", 1e-3), ("text_encoder", 1e-3)]
    assert [parameter for group in groups for parameter in group.parameters] == [item.parameter for item in items]


def test_rates_by_part_block_and_factor() -> None:
    settings = TrainSettings(learning_rate=1e-3, text_encoder_learning_rate=0.0, loraplus_lr_ratio=16)
    items = trainables()
    rates = {group.name: group.learning_rate for group in parameter_groups(items, settings)}
    expected = {"unet": 1e-3, "unet x0.5": 5e-4, "unet up": 16e-3, "unet up x0.5": 8e-3}
    assert rates == pytest.approx({**expected, "text_encoder": 0.0, "text_encoder up": 0.0})
    assert next(iter(rates)) == "unet", "the rate that is shown"
    frozen = [item.part == "text_encoder" for item in items]
    assert [not item.parameter.requires_grad for item in items] == frozen


def test_up_parts_learn_as_many_times_as_fast() -> None:
    """SGD with equal gradients: the step is the rate."""
    items = [Trainable(nn.Parameter(torch.zeros(1, dtype=torch.float64)), "unet", is_up=up) for up in (False, True)]
    settings = TrainSettings(learning_rate=0.01, loraplus_lr_ratio=4, optimizer="sgd", lr_scheduler="constant")
    learner = Learning(parameter_groups(items, settings), settings, 3, scaled=False)
    for _ in range(3):
        learner.backward(sum(item.parameter.sum() for item in items) / 10)
        learner.apply_gradients(learner.advance())
    down, up = (float(item.parameter.detach()) for item in items)
    assert down == pytest.approx(-0.003) and up == pytest.approx(-0.012)
    assert learner.learning_rate == 0.01
