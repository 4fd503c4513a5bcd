"""What learns: clipping that clips, updates that are left out, loss scaling, and going on from a saved state."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer.config import TrainSettings
from trainer.errors import UserError
from trainer.learning import Learning
from trainer.optimizer_classes import OPTIMIZERS, OptimizerSource
from trainer.parameter_groups import ParameterGroup


def learning(scaled: bool = False, **settings: object) -> tuple[Learning, nn.Parameter]:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    settings = {"learning_rate": 0.1, "lr_scheduler": "constant", "optimizer": "sgd", **settings}
    groups = [ParameterGroup("unet", 0.1, [parameter])]
    return Learning(groups, TrainSettings(**settings), 10, scaled=scaled), parameter  # type: ignore


def test_gradients_are_clipped_and_their_length_before_is_told() -> None:
    learner, parameter = learning(max_grad_norm=0.5)
    learner.backward((parameter * torch.tensor([3.0, 4.0])).sum())
    loss, norm, _ = learner.apply_gradients(learner.advance()).tolist()
    assert loss == 11 and norm == pytest.approx(5.0)
    # gradient (3, 4) shortened to (0.3, 0.4), times the learning rate
    torch.testing.assert_close(parameter.detach(), torch.tensor([1 - 0.03, 2 - 0.04]))


def test_rates_that_differ_are_told_by_name() -> None:
    settings = TrainSettings(learning_rate=0.1, lr_scheduler="linear", optimizer="sgd")
    rates = {"unet": 0.1, "unet up": 0.1, "text_encoder": 0.02}
    groups = [ParameterGroup(name, rate, [nn.Parameter(torch.ones(2))]) for name, rate in rates.items()]
    learner = Learning(groups, settings, 10, scaled=False)
    assert learner.other_learning_rates == {}
    learner.apply_gradients(learner.advance())
    learner.apply_gradients(learner.advance())
    assert learner.learning_rate < 0.1
    assert learner.other_learning_rates == {"text_encoder": pytest.approx(learner.learning_rate / 5)}


def test_no_limit_leaves_gradients_alone() -> None:
    learner, parameter = learning(max_grad_norm=0.0)
    learner.backward((parameter * torch.tensor([3.0, 4.0])).sum())
    learner.apply_gradients(learner.advance())
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.7, 1.6]))


@pytest.mark.parametrize("scaled", [False, True])
def test_a_gradient_that_is_not_finite_changes_nothing(scaled: bool) -> None:
    learner, parameter = learning(scaled, optimizer="adamw", ema=0.9)
    for step, factor in enumerate((1.0, math.nan, math.inf, 1.0)):
        before = parameter.detach().clone()
        learner.backward((parameter * factor).sum())
        learner.heard(float(learner.apply_gradients(learner.advance())[1]))
        assert torch.equal(parameter, before) == (not math.isfinite(factor))
        assert learner.step == step + 1
        assert learner.skipped == {0: 0, 1: 1, 2: 2, 3: 0}[step]
    assert torch.isfinite(parameter).all() and all(torch.isfinite(mean).all() for mean in learner.state()["ema"])


@pytest.mark.parametrize(("decay", "mean"), [(0.1, 0.91), (0.15, 0.915)])
def test_the_result_is_the_running_mean(decay: float, mean: float) -> None:
    """From 1 to 0.9: ``decay * 1 + (1 - decay) * 0.9``."""
    learner, parameter = learning(ema=decay, max_grad_norm=0.0)
    learner.backward(parameter.sum())
    learner.apply_gradients(learner.advance())
    assert float(parameter[0].detach()) == pytest.approx(0.9)
    with learner.result():
        assert float(parameter[0].detach()) == pytest.approx(mean)


def test_loss_scaling_changes_no_update() -> None:
    results = []
    for scaled in (False, True):
        learner, parameter = learning(scaled)
        for _ in range(3):
            learner.backward((parameter**2).sum())
            learner.apply_gradients(learner.advance())
        results.append(parameter.detach().clone())
    torch.testing.assert_close(*results)


def test_a_saved_state_goes_on_exactly(tmp_path) -> None:
    def steps(learner: Learning, parameter: nn.Parameter, count: int) -> None:
        for _ in range(count):
            learner.backward((parameter**3).sum())
            learner.apply_gradients(learner.advance())

    settings = {"optimizer": "adamw", "ema": 0.9, "lr_scheduler": "cosine"}
    whole, whole_parameter = learning(True, **settings)
    steps(whole, whole_parameter, 6)
    first, first_parameter = learning(True, **settings)
    steps(first, first_parameter, 3)
    torch.save(first.state(), tmp_path / "state.pt")
    second, second_parameter = learning(True, **settings)
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    steps(second, second_parameter, 3)
    assert torch.equal(second_parameter, whole_parameter)
    assert torch.equal(second.state()["ema"][0], whole.state()["ema"][0])
    with second.result():
        assert not torch.equal(second_parameter, whole_parameter)


def test_a_state_of_another_size_is_refused() -> None:
    learner, _ = learning()
    state = learner.state()
    state["parameters"] = [torch.zeros(3)]
    with pytest.raises(ValueError, match="size"):
        learner.load_state(state)


def skip_if_missing(name: str) -> None:
    source = OPTIMIZERS[name] if name in OPTIMIZERS else OptimizerSource(name, name.partition(".")[0])  # type: ignore
    pytest.importorskip(source.path.partition(".")[0], reason=f"the package {source.install} is not installed")


def quadratic(name: str, steps: int, **settings: object) -> tuple[list[float], list[float], Learning, nn.Parameter]:
    """Minimise x^2 / 2 from x = 1: reported learning rates and x before each step."""
    skip_if_missing(name)
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    values = {"learning_rate": 1.0, "lr_scheduler": "constant", "max_grad_norm": 0.0, **settings}
    learner = Learning(
        [ParameterGroup("unet", values["learning_rate"], [parameter])],
        TrainSettings(optimizer=name, **values),
        steps,
        scaled=False,
    )  # type: ignore
    rates, points = [], []
    for _ in range(steps):
        points.append(float(parameter.detach()))
        learner.backward((parameter**2 / 2).sum())
        learner.apply_gradients(learner.advance())
        rates.append(learner.learning_rate)
    return rates, points, learner, parameter


def test_prodigys_rate_is_the_one_the_weights_feel() -> None:
    """Mishchenko & Defazio 2023, algorithm 4, in float64."""
    rates, points, *_ = quadratic("prodigy", 300, learning_rate=0.9)
    rate, beta1, beta2, d = 0.9, 0.9, 0.999, 1e-6
    x, m, v, r, s = 1.0, 0.0, 0.0, 0.0, 0.0
    for reported, point in zip(rates, points, strict=True):
        assert (reported, point) == (pytest.approx(d * rate, rel=1e-4), pytest.approx(x, abs=1e-4))
        g = x
        m, v = beta1 * m + (1 - beta1) * d * g, beta2 * v + (1 - beta2) * d * d * g * g
        r = math.sqrt(beta2) * r + (1 - math.sqrt(beta2)) * rate * d * d * g * (1.0 - x)
        s = math.sqrt(beta2) * s + (1 - math.sqrt(beta2)) * rate * d * d * g
        x -= rate * d * m / (math.sqrt(v) + d * 1e-8)
        d = max(d, r / abs(s))
    assert d > 1e-3, "it found a rate"


def test_d_adaptations_rate_is_the_one_the_weights_feel() -> None:
    """Defazio & Mishchenko 2023, algorithm 5, in float64."""
    rates, points, *_ = quadratic("dadapt_adam", 300)
    beta1, beta2, d = 0.9, 0.999, 1e-6
    x, m, v, r, s = 1.0, 0.0, 0.0, 0.0, 0.0
    for reported, point in zip(rates, points, strict=True):
        assert (reported, point) == (pytest.approx(d, rel=1e-4), pytest.approx(x, abs=1e-4))
        g, root = x, math.sqrt(beta2)
        r = root * r + (1 - root) * d * g * s / (math.sqrt(v) + 1e-8)
        m, v = beta1 * m + (1 - beta1) * d * g, beta2 * v + (1 - beta2) * g * g
        s = root * s + (1 - root) * d * g
        x -= m / (math.sqrt(v) + 1e-8)
        d = max(d, r / ((1 - root) * abs(s)))
    assert d > 1e-4, "it found a rate"


def test_lion_moves_by_the_sign() -> None:
    """Chen et al. 2023, algorithm 2: x -= rate * sign(...), here always downhill."""
    _, points, *_ = quadratic("lion", 5, learning_rate=0.01)
    assert points == pytest.approx([1.0, 0.99, 0.98, 0.97, 0.96])


def test_schedule_free_trains_at_one_point_and_gives_the_mean() -> None:
    """Defazio et al. 2024, algorithm 1, in float64: y is trained at, x is the result, z takes the steps."""
    _, points, learner, parameter = quadratic("schedule_free_adamw", 30, learning_rate=0.05)
    beta1, beta2, z, x, v = 0.9, 0.999, 1.0, 1.0, 0.0
    for step, point in enumerate(points):
        y = (1 - beta1) * z + beta1 * x
        assert point == pytest.approx(y, abs=1e-6)
        v = beta2 * v + (1 - beta2) * y * y
        z -= 0.05 * y / (math.sqrt(v / (1 - beta2 ** (step + 1))) + 1e-8)
        x += (z - x) / (step + 1)
    before = parameter.detach().clone()
    with learner.result():
        assert float(parameter.detach()) == pytest.approx(x, abs=1e-6)
    assert abs(float(before) - x) > 1e-3
    assert torch.equal(parameter, before), "looking changes nothing, to the last bit"


def test_a_schedule_free_class_takes_no_norm_limit() -> None:
    pytest.importorskip("schedulefree", reason="the package schedulefree is not installed")
    path = "schedulefree.SGDScheduleFree"
    groups = [ParameterGroup("unet", 0.1, [nn.Parameter(torch.ones(2))])]
    settings = TrainSettings(optimizer=path, lr_scheduler="constant")
    with pytest.raises(UserError, match=r"lora\.max_norm"):
        Learning(groups, settings, 3, scaled=False, limit_norms=lambda: torch.tensor(0), allowed_optimizers=[path])


SCHEDULE_FREE = ["schedulefree.RAdamScheduleFree", "schedulefree.SGDScheduleFree"]


@pytest.mark.parametrize("name", [*OPTIMIZERS, *SCHEDULE_FREE])
def test_every_optimizer_goes_on_exactly(name: str, tmp_path: Path) -> None:
    """Saved after three of six steps, looked at on the way or not: the same bytes."""
    settings = {"learning_rate": 0.05, "lr_scheduler": "constant", "lr_warmup_steps": 2, "max_grad_norm": 0.5}
    skip_if_missing(name)

    def fresh() -> tuple[Learning, dict[str, list[nn.Parameter]]]:
        generator = torch.Generator().manual_seed(1)
        parts = {
            "unet": [nn.Parameter(torch.randn(5, 7, generator=generator)), nn.Parameter(torch.zeros(3, 4))],
            "text_encoder": [nn.Parameter(torch.randn(4, generator=generator))],
        }
        groups = [ParameterGroup(part, 0.05, members) for part, members in parts.items()]
        settled = TrainSettings.model_validate({"optimizer": name, **settings})
        return Learning(groups, settled, 6, scaled=False, allowed_optimizers=[name]), parts

    def steps(learner: Learning, parts: dict[str, list[nn.Parameter]], count: int, look: bool = False) -> None:
        for _ in range(count):
            learner.backward(sum(((p - 0.3) ** 3).abs().sum() for members in parts.values() for p in members))  # type: ignore
            learner.apply_gradients(learner.advance())
            if look:
                with learner.result():
                    pass

    whole, expected = fresh()
    steps(whole, expected, 6)
    first, first_parts = fresh()
    steps(first, first_parts, 3, look=True)
    torch.save(first.state(), tmp_path / "state.pt")
    second, parts = fresh()
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    steps(second, parts, 3)
    for part, members in expected.items():
        assert all(torch.equal(*pair) for pair in zip(parts[part], members, strict=True))
        assert not torch.equal(members[0], fresh()[1][part][0])
    assert second.learning_rate == whole.learning_rate


@pytest.mark.parametrize("name", [*OPTIMIZERS, *SCHEDULE_FREE])
def test_a_state_is_not_changed_by_what_comes_after(name: str) -> None:
    """It is written when it was taken, or later: further steps, and looking at the mean, leave it alone."""
    skip_if_missing(name)
    settings = TrainSettings.model_validate({"optimizer": name, "lr_scheduler": "constant"})
    parameter = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
    groups = [ParameterGroup("unet", 0.05, [parameter])]
    learner = Learning(groups, settings, 9, scaled=False, allowed_optimizers=[name])

    def step() -> None:
        learner.backward(((parameter - 0.3) ** 2).sum())
        learner.apply_gradients(learner.advance())

    step()
    with learner.result():
        pass
    state = learner.state()
    kept = copy.deepcopy(state)
    with learner.result():
        pass
    for _ in range(2):
        step()
    assert _same(state, kept)
    assert not _same(learner.state(), kept), "the comparison sees a step"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize(
    ("changed", "told"), [({"optimizer": "sgd"}, "SGD"), ({"optimizer_args": {"weight_decay": 0.5}}, "0.5")]
)
def test_a_checkpoint_of_another_optimizer_is_refused(changed: dict[str, Any], told: str) -> None:
    """Torch would take the state and go on with the old arguments, or fail in the middle of a step."""

    def learner(**settings: Any) -> Learning:
        groups = [ParameterGroup("unet", 0.1, [nn.Parameter(torch.ones(2))])]
        return Learning(groups, TrainSettings.model_validate(settings), 3, scaled=False)

    with pytest.raises(ValueError, match=told):
        learner(**changed).load_state(learner().state())


def eight_bits(name: str, parameter: nn.Parameter) -> tuple[Learning, nn.Parameter]:
    settings = TrainSettings.model_validate({"optimizer": name, "lr_scheduler": "constant", "learning_rate": 0.01})
    return Learning([ParameterGroup("unet", 0.01, [parameter])], settings, 30, scaled=False), parameter


def test_eight_bits_learn_as_adamw_with_less_state_and_go_on_exactly(tmp_path: Path) -> None:
    """A layer of 4096 numbers, the smallest whose averages bitsandbytes keeps in 8 bits."""
    skip_if_missing("adamw8bit")
    start, goal = (torch.randn(64, 64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    if torch.cuda.is_available():
        start, goal = start.cuda(), goal.cuda()

    def steps(learner: Learning, parameter: nn.Parameter, count: int) -> None:
        for _ in range(count):
            learner.backward(((parameter - goal) ** 2).mean())
            learner.apply_gradients(learner.advance())

    plain, full = eight_bits("adamw", nn.Parameter(start.clone()))
    whole, expected = eight_bits("adamw8bit", nn.Parameter(start.clone()))
    first, first_parameter = eight_bits("adamw8bit", nn.Parameter(start.clone()))
    steps(plain, full, 30)
    steps(whole, expected, 30)
    steps(first, first_parameter, 15)
    torch.save(first.state(), tmp_path / "state.pt")
    second, parameter = eight_bits("adamw8bit", nn.Parameter(start.clone()))
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    steps(second, parameter, 15)
    assert second._optimizer.state[parameter]["state1"].dtype == torch.uint8
    assert torch.equal(parameter, expected)
    moved, reference = expected.detach() - start, full.detach() - start
    assert float((moved - reference).norm() / reference.norm()) < 0.05


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_it_says_which_part_is_not_finite(value: float) -> None:
    learner, parameter = learning(optimizer="adamw", ema=0.9)
    learner.backward((parameter * torch.tensor([3.0, 4.0])).sum())
    learner.apply_gradients(learner.advance())
    assert learner.not_finite() is None
    sound = learner.state()

    def spoiled(part: str) -> str | None:
        state = copy.deepcopy(sound)
        tensors = {
            "weights": state["parameters"][0],
            "averages": state["optimizer"]["state"][0]["exp_avg_sq"],
            "mean": state["ema"][0],
        }
        tensors[part][1] = value
        learner.load_state(state)
        return learner.not_finite()

    assert spoiled("weights") == "the weights"
    assert spoiled("averages") == "the optimizer's averages"
    assert spoiled("mean") == "the running mean of the weights"


def test_a_share_of_the_rate_is_the_share_of_every_group() -> None:
    groups = [ParameterGroup(name, rate, [nn.Parameter(torch.ones(2))]) for name, rate in (("a", 0.1), ("b", 0.02))]
    settings = TrainSettings(learning_rate=0.1, lr_scheduler="constant", optimizer="sgd", max_grad_norm=0)
    learner = Learning(groups, settings, 10, scaled=False)
    learner.rate_share = 0.25
    learner.backward(sum(group.parameters[0].sum() for group in groups))
    learner.apply_gradients(learner.advance())
    assert learner.learning_rate == 0.025 and learner.other_learning_rates == {"b": 0.005}
    torch.testing.assert_close(groups[0].parameters[0].detach(), torch.full((2,), 1 - 0.025))
    torch.testing.assert_close(groups[1].parameters[0].detach(), torch.full((2,), 1 - 0.005))
