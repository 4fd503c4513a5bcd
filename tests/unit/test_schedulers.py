"""Learning-rate schedules against formulas in plain float64, and against diffusers and torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from diffusers.optimization import get_scheduler
from pydantic import ValidationError
from torch import nn

from trainer import config
from trainer.config import TrainSettings
from trainer.learning import Learning
from trainer.parameter_groups import ParameterGroup
from trainer.schedulers import learning_rate_factor, set_learning_rate, steps_of

STEPS = 20


def table(settings: TrainSettings, max_steps: int = STEPS) -> list[float]:
    factor = learning_rate_factor(settings, max_steps)
    return [factor(step) for step in range(max_steps)]


def by_hand(shape: Callable[[float], float], warmup: int = 0, begin: int | None = None) -> list[float]:
    """Up on a line, then flat until step ``begin``, then down ``shape``, a function of the share of the fall done."""
    begin = warmup if begin is None else begin
    return [
        step / warmup if step < warmup else 1.0 if step < begin else shape((step - begin) / (STEPS - begin))
        for step in range(STEPS)
    ]


CASES = [
    ({"lr_scheduler": "constant"}, by_hand(lambda z: 1)),
    ({"lr_scheduler": "constant", "lr_warmup_steps": 4}, by_hand(lambda z: 1, 4)),
    ({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 0.2}, by_hand(lambda z: 1, 4)),
    ({"lr_scheduler": "linear", "lr_warmup_steps": 5}, by_hand(lambda z: 1 - z, 5)),
    ({"lr_scheduler": "cosine"}, by_hand(lambda z: math.cos(math.pi * z / 2) ** 2)),
    ({"lr_scheduler": "cosine", "lr_warmup_steps": 0.1}, by_hand(lambda z: math.cos(math.pi * z / 2) ** 2, 2)),
    ({"lr_scheduler": "cosine", "lr_min_ratio": 0.25}, by_hand(lambda z: 0.25 + 0.75 * math.cos(math.pi * z / 2) ** 2)),
    ({"lr_scheduler": "cosine", "lr_decay_steps": 5}, by_hand(lambda z: math.cos(math.pi * z / 2) ** 2, 0, 15)),
    ({"lr_scheduler": "linear", "lr_decay_steps": 0.25, "lr_warmup_steps": 3}, by_hand(lambda z: 1 - z, 3, 15)),
    ({"lr_scheduler": "linear", "lr_decay_steps": 30, "lr_warmup_steps": 3}, by_hand(lambda z: 1 - z, 3)),
    (
        {"lr_scheduler": "cosine_with_restarts", "lr_num_cycles": 4},
        by_hand(lambda z: math.cos(math.pi * math.fmod(z * STEPS, 5) / 10) ** 2),
    ),
    ({"lr_scheduler": "polynomial", "lr_power": 3}, by_hand(lambda z: (1 - z) ** 3)),
    (
        {"lr_scheduler": "polynomial", "lr_power": 0.5, "lr_min_ratio": 0.1},
        by_hand(lambda z: 0.1 + 0.9 * (1 - z) ** 0.5),
    ),
    ({"lr_scheduler": "rex"}, by_hand(lambda z: 2 * (1 - z) / (2 - z))),
    ({"lr_scheduler": "rex", "lr_warmup_steps": 4}, by_hand(lambda z: 2 * (1 - z) / (2 - z), 4)),
]


@pytest.mark.parametrize(("settings", "expected"), CASES)
def test_schedules_by_hand(settings: dict, expected: list[float]) -> None:
    assert table(TrainSettings(**settings)) == pytest.approx(expected, abs=1e-12)


def test_rex_by_hand_in_fractions() -> None:
    """(1 - z) / (1/2 + (1 - z)/2) at z = 0, 1/4, 1/2, 3/4."""
    assert table(TrainSettings(lr_scheduler="rex"), 4) == pytest.approx([1, 6 / 7, 2 / 3, 2 / 5])


DIFFUSERS = [name for name in config.options(config.LrScheduler) if name not in ("one_cycle", "rex")]


@pytest.mark.parametrize("name", DIFFUSERS)
@pytest.mark.parametrize("warmup", [0, 3])
def test_schedules_are_diffusers_own(name: str, warmup: int) -> None:
    cycles, power = {"cosine_with_restarts": 3}.get(name, 1), {"polynomial": 2.0}.get(name, 1.0)
    settings = TrainSettings(lr_scheduler=name, lr_warmup_steps=warmup, lr_num_cycles=cycles, lr_power=power)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    diffusers_name = "constant_with_warmup" if name == "constant" and warmup else name
    schedule = get_scheduler(
        diffusers_name, optimizer, num_warmup_steps=warmup, num_training_steps=12, num_cycles=cycles, power=power
    )
    for ours in table(settings, 12):
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1.1e-7)  # their polynomial ends at 1e-7
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(("warmup", "share"), [(0, 0.3), (8, 0.4), (0.5, 0.5)])
def test_one_cycle_is_torchs(warmup: float, share: float) -> None:
    ours = table(TrainSettings(lr_scheduler="one_cycle", lr_warmup_steps=warmup))
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=STEPS, pct_start=share, cycle_momentum=False
    )
    for factor in ours:
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        if schedule.last_epoch < STEPS - 1:
            schedule.step()
    assert (max(ours), ours[0], ours[-1]) == (1.0, pytest.approx(0.04), pytest.approx(4e-6))


@pytest.mark.parametrize("name", config.options(config.LrScheduler))
@pytest.mark.parametrize("max_steps", [1, 2, 3])
def test_the_shortest_runs_have_a_schedule(name: str, max_steps: int) -> None:
    assert all(0 <= factor <= 1 for factor in table(TrainSettings(lr_scheduler=name), max_steps))
    assert all(0 <= factor <= 1 for factor in table(TrainSettings(lr_scheduler=name, lr_warmup_steps=9), max_steps))


def test_steps_or_a_share_of_them() -> None:
    assert steps_of(7, 1000) == 7
    assert steps_of(0.07, 1000) == 70
    assert isinstance(TrainSettings(lr_warmup_steps=100.0).lr_warmup_steps, int)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_scheduler": "cosine", "lr_num_cycles": 2}, "needs lr_scheduler cosine_with_restarts"),
        ({"lr_scheduler": "linear", "lr_power": 2}, "needs lr_scheduler polynomial"),
        ({"lr_scheduler": "constant", "lr_decay_steps": 5}, "lr_decay_steps"),
        ({"lr_scheduler": "one_cycle", "lr_min_ratio": 0.1}, "lr_min_ratio"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSettings(**settings)


def test_every_group_keeps_its_own_base_rate() -> None:
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))]} for _ in range(2)], lr=1.0)
    set_learning_rate(optimizer, [1e-2, 3e-4], 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3, 1.5e-4]


def test_an_extended_run_follows_the_longer_schedule_from_where_it_is() -> None:
    """Four steps of a run of four, resumed as one of eight: from there on the rates are those of a run of eight."""

    def rates(learner: Learning, parameter: nn.Parameter, count: int) -> list[float]:
        seen = []
        for _ in range(count):
            learner.backward((parameter**2).sum())
            learner.apply_gradients(learner.advance())
            seen.append(learner.learning_rate)
        return seen

    settings = TrainSettings(learning_rate=0.5, lr_scheduler="linear", lr_warmup_steps=2)
    first_parameter, second_parameter = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    first = Learning([ParameterGroup("unet", 0.5, [first_parameter])], settings, 4, scaled=False)
    assert rates(first, first_parameter, 4) == pytest.approx([0, 0.25, 0.5, 0.25])
    second = Learning([ParameterGroup("unet", 0.5, [second_parameter])], settings, 8, scaled=False)
    second.load_state(first.state())
    assert rates(second, second_parameter, 4) == pytest.approx([0.5 * 4 / 6, 0.5 * 3 / 6, 0.5 * 2 / 6, 0.5 * 1 / 6])
