"""Optimizers, learning-rate schedules and the running mean of weights, against torch and diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers.optimization import get_scheduler
from torch import nn

from trainer import config
from trainer.config import TrainSettings
from trainer.ema import Ema
from trainer.errors import UserError
from trainer.optimizers import OPTIMIZERS, make_optimizer
from trainer.parameter_groups import ParameterGroup, Trainable, parameter_groups
from trainer.schedulers import learning_rate_factor, set_learning_rate


def groups(settings: TrainSettings) -> list[ParameterGroup]:
    parts = ("unet", "text_encoder")
    return parameter_groups([Trainable(nn.Parameter(torch.ones(4, 4)), part) for part in parts], settings)


def optimizer_of(settings: TrainSettings) -> torch.optim.Optimizer:
    return make_optimizer(groups(settings), settings)


def test_every_name_has_an_optimizer() -> None:
    assert tuple(OPTIMIZERS) == config.options(config.Optimizer)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "sgd"])
def test_optimizers_minimise_with_a_rate_for_each_part(name) -> None:
    settings = TrainSettings(optimizer=name, learning_rate=0.1, text_encoder_learning_rate=0.0)
    unet, text = groups(settings)
    optimizer = make_optimizer([unet, text], settings)
    for _ in range(20):
        optimizer.zero_grad()
        sum((group.parameters[0] ** 2).sum() for group in (unet, text)).backward()
        optimizer.step()
    assert float(unet.parameters[0].detach().abs().max()) < 0.7
    assert torch.equal(text.parameters[0], torch.ones(4, 4)), "a learning rate of 0 is a value"


def test_the_text_encoder_takes_the_learning_rate_when_it_has_none() -> None:
    optimizer = optimizer_of(TrainSettings(learning_rate=3e-4))
    assert [group["lr"] for group in optimizer.param_groups] == [3e-4, 3e-4]


def test_arguments_reach_the_optimizer() -> None:
    arguments = {"weight_decay": 0.5, "betas": [0.8, 0.9]}
    optimizer = optimizer_of(TrainSettings(optimizer_args=arguments))
    assert optimizer.defaults["weight_decay"] == 0.5 and optimizer.defaults["betas"] == (0.8, 0.9)


@pytest.mark.parametrize("arguments", [{"no_such_thing": 1}, {"betas": [2.0, 0.9]}])
def test_wrong_arguments_are_the_users(arguments: dict) -> None:
    with pytest.raises(UserError) as caught:
        optimizer_of(TrainSettings(optimizer_args=arguments))
    assert caught.value.problems[0].field == "train.optimizer_args"


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_adamw8bit_without_a_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="NVIDIA"):
        optimizer_of(TrainSettings(optimizer="adamw8bit"))


@pytest.mark.parametrize("name", config.options(config.LrScheduler))
@pytest.mark.parametrize("warmup", [0, 3])
def test_learning_rates_are_diffusers_own(name, warmup: int) -> None:
    settings = TrainSettings(lr_scheduler=name, lr_warmup_steps=warmup, learning_rate=1e-2)
    ours = optimizer_of(settings)
    factor = learning_rate_factor(settings, max_steps=12)
    theirs = optimizer_of(settings)
    diffusers_name = "constant_with_warmup" if name == "constant" and warmup else name
    schedule = get_scheduler(diffusers_name, theirs, num_warmup_steps=warmup, num_training_steps=12)
    for step in range(12):
        set_learning_rate(ours, [1e-2, 1e-2], factor(step))
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in (ours, theirs)]
        assert rates[0] == pytest.approx(rates[1], abs=1.1e-6)  # diffusers' polynomial ends a little above zero
        theirs.step()
        schedule.step()


def test_the_running_mean_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([0.0]))
    ema = Ema([parameter], decay=0.5)
    parameter.data.fill_(11.0)
    ema.update(1)  # decay min(0.5, 2/11): 0 * 2/11 + 11 * 9/11 = 9
    with ema.applied():
        assert float(parameter.detach()) == pytest.approx(9.0)
    assert float(parameter.detach()) == 11.0
    parameter.data.fill_(21.0)
    ema.update(100)  # decay 0.5: (9 + 21) / 2 = 15
    with ema.applied():
        assert float(parameter.detach()) == pytest.approx(15.0)


def test_the_running_mean_goes_on_from_a_checkpoint() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    first, second = Ema([parameter], 0.9), Ema([parameter], 0.9)
    parameter.data.fill_(1.0)
    first.update(1)
    second.load_state([average.clone() for average in first.state()])
    for ema in (first, second):
        ema.update(2)
    assert torch.equal(first.state()[0], second.state()[0])
