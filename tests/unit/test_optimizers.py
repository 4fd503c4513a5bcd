"""Optimizers: what they are made of, what is refused, and the running mean of weights by hand."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from trainer import config
from trainer.config import TrainSettings
from trainer.config_training import OWN_RATE
from trainer.ema import Ema
from trainer.errors import UserError
from trainer.optimizer_classes import OPTIMIZERS
from trainer.optimizers import make_optimizer
from trainer.parameter_groups import ParameterGroup, Trainable, parameter_groups
from trainer.plan_warnings import about_optimizer


def groups(settings: TrainSettings) -> list[ParameterGroup]:
    parts = ("unet", "text_encoder")
    return parameter_groups([Trainable(nn.Parameter(torch.ones(4, 4)), part) for part in parts], settings)


def optimizer_of(settings: TrainSettings, allowed: Sequence[str] = ()) -> torch.optim.Optimizer:
    return make_optimizer(groups(settings), settings, allowed)


def skip_if_missing(name: str) -> None:
    source = OPTIMIZERS[name]  # type: ignore
    if importlib.util.find_spec(source.path.partition(".")[0]) is None:
        pytest.skip(f"the package {source.install} is not installed")


def test_every_name_has_an_optimizer() -> None:
    assert (*OPTIMIZERS, "custom") == config.options(config.Optimizer)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adamw8bit"])
def test_optimizers_minimise_with_a_rate_for_each_part(name) -> None:
    skip_if_missing(name)
    rate = {"prodigy": 1.0, "dadapt_adam": 1.0, "lion": 0.03}.get(name, 0.1)
    constant = {"lr_scheduler": "constant"}
    settings = TrainSettings(optimizer=name, learning_rate=rate, text_encoder_learning_rate=0.0, **constant)
    unet, text = (
        ParameterGroup(part, each, [nn.Parameter(torch.ones(4, 4))]) for part, each in (("unet", rate), ("text", 0.0))
    )
    optimizer = make_optimizer([unet, text], settings)
    for _ in range(200 if name in OWN_RATE else 20):
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


def test_a_class_that_is_not_allowed_is_not_even_imported() -> None:
    settings = TrainSettings(optimizer="custom", optimizer_class="this.Surely")
    for allowed in ((), ("torch.optim.RAdam",)):
        with pytest.raises(UserError, match="not allowed") as caught:
            optimizer_of(settings, allowed)
        assert caught.value.problems[0].field == "train.optimizer_class"
    assert "this" not in sys.modules, "the standard library's joke was not told"


def test_an_allowed_class_is_used() -> None:
    settings = TrainSettings(optimizer="torch.optim.RAdam", optimizer_args={"betas": [0.5, 0.9]})
    assert (settings.optimizer, settings.optimizer_class) == ("custom", "torch.optim.RAdam")
    optimizer = optimizer_of(settings, ["torch.optim.RAdam"])
    assert isinstance(optimizer, torch.optim.RAdam) and optimizer.defaults["betas"] == (0.5, 0.9)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("torch.nn.Linear", "not a torch optimizer"),
        ("torch.optim.No", "cannot be loaded"),
        ("no_such.A", "no_such, which is not installed"),
    ],
)
def test_allowed_names_that_are_no_optimizers(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        optimizer_of(TrainSettings(optimizer=path), [path])


def test_a_schedule_free_class_needs_a_constant_rate() -> None:
    pytest.importorskip("schedulefree", reason="the package schedulefree is not installed")
    path = "schedulefree.RAdamScheduleFree"
    with pytest.raises(UserError, match="schedule-free"):
        optimizer_of(TrainSettings(optimizer=path, lr_scheduler="cosine"), [path])
    assert optimizer_of(TrainSettings(optimizer=path, lr_scheduler="constant"), [path])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "custom"}, "needs optimizer_class"),
        ({"optimizer_class": "torch.optim.RAdam"}, "needs optimizer custom"),
        ({"optimizer": "os.system;"}, "optimizer_class"),
        ({"optimizer": "schedule_free_adamw"}, "needs lr_scheduler constant"),
        ({"optimizer": "schedule_free_adamw", "lr_scheduler": "constant", "ema": 0.9}, "mean of its own"),
        ({"optimizer": "adafactor", "optimizer_args": {"relative_step": True}}, "would ignore learning_rate"),
    ],
)
def test_what_makes_no_sense_together_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSettings(**settings)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ValidationError, match=r"lr_scheduler constant.*leave ema empty.*lr_power"):
        TrainSettings(optimizer="schedule_free_adamw", ema=0.9, lr_power=2)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(UserError, match="pip install prodigyopt"):
        optimizer_of(TrainSettings(optimizer="prodigy"))


@pytest.mark.parametrize("name", OWN_RATE)
def test_one_rate_for_all_parts(name, capsys: pytest.CaptureFixture[str]) -> None:
    skip_if_missing(name)
    rates = {"learning_rate": 1.0, "text_encoder_learning_rate": 0.5}
    with pytest.raises(UserError, match=r"0\.5 and 1"):
        optimizer_of(TrainSettings(optimizer=name, **rates))
    arguments = {"decouple": True, "weight_decay": 0.1}
    settings = TrainSettings(optimizer=name, **rates | {"text_encoder_learning_rate": 0.0}, optimizer_args=arguments)
    assert optimizer_of(settings)
    assert capsys.readouterr().out == "", "stdout belongs to --json"


def test_a_rate_that_is_probably_not_meant_is_told() -> None:
    [problem] = about_optimizer(TrainSettings(optimizer="prodigy", learning_rate=1e-4))
    assert "0.0001" in problem.message and problem.field == "train.learning_rate"
    assert not list(about_optimizer(TrainSettings(optimizer="prodigy", learning_rate=1)))
    assert not list(about_optimizer(TrainSettings(learning_rate=1e-4)))


def test_the_running_mean_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([0.0]))
    ema = Ema([parameter], decay=0.5)
    parameter.data.fill_(11.0)
    ema.take_in(torch.tensor(ema.share_at(1)))  # decay min(0.5, 2/11): 0 * 2/11 + 11 * 9/11 = 9
    with ema.applied():
        assert float(parameter.detach()) == pytest.approx(9.0)
    assert float(parameter.detach()) == 11.0
    parameter.data.fill_(21.0)
    ema.take_in(torch.tensor(ema.share_at(100)))  # decay 0.5: (9 + 21) / 2 = 15
    with ema.applied():
        assert float(parameter.detach()) == pytest.approx(15.0)


def test_the_running_mean_goes_on_from_a_checkpoint() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    first, second = Ema([parameter], 0.9), Ema([parameter], 0.9)
    parameter.data.fill_(1.0)
    first.take_in(torch.tensor(first.share_at(1)))
    second.load_state([average.clone() for average in first.state()])
    for ema in (first, second):
        ema.take_in(torch.tensor(ema.share_at(2)))
    assert torch.equal(first.state()[0], second.state()[0])
