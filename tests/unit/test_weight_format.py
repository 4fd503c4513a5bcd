"""Rounding by chance, against float64 and the formats' own grids, and steps of optimizers on 16-bit weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from trainer import config, weight_format
from trainer.config import Config, TrainSettings
from trainer.config_io import parse_config
from trainer.ema import Ema
from trainer.errors import UserError
from trainer.learning import Learning
from trainer.optimizers import make_optimizer
from trainer.parameter_groups import ParameterGroup
from trainer.weight_format import FORMATS, round_stochastically, state_format, step_rounded

SIXTEEN = [torch.bfloat16, torch.float16]
DRAWS = 1 << 17


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_format_has_a_name() -> None:
    assert tuple(FORMATS) == config.options(config.LoraPrecision)


@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
@pytest.mark.parametrize("value", [1.0001, -1.0001, 3.14159, -2.7e-3, 1.9999, 6.1e-5, 3.3e-8, -5.55e-5, 1234.567])
def test_rounding_is_one_of_the_two_neighbours_and_right_on_average(dtype: torch.dtype, value: float) -> None:
    """The neighbours as torch counts them; the mean of n draws is within five of its standard deviations."""
    exact = torch.tensor(value, dtype=torch.float32)
    rounded = round_stochastically(exact.expand(DRAWS), dtype, chance())
    nearest = exact.to(dtype)
    step_away = torch.tensor(float("inf") if exact > nearest.float() else float("-inf"), dtype=dtype)
    other = torch.nextafter(nearest, step_away)
    assert set(rounded.unique().tolist()) == {float(nearest), float(other)}
    width = abs(float(nearest) - float(other))
    share = abs(float(exact) - float(nearest)) / width
    deviation = width * (share * (1 - share) / DRAWS) ** 0.5
    assert abs(float(rounded.double().mean()) - float(exact)) < 5 * deviation


@pytest.mark.parametrize("dtype", SIXTEEN, ids=str)
def test_what_the_format_holds_stays(dtype: torch.dtype) -> None:
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)  # every number there is
    held = bits[bits.isfinite() & (bits.float().abs() >= (2.0**-118 if dtype == torch.bfloat16 else 0))].float()
    assert torch.equal(round_stochastically(held, dtype, chance()).float(), held)
    odd = torch.tensor([float("inf"), float("-inf"), float("nan")])
    assert torch.equal(round_stochastically(odd, dtype, chance()).float().nan_to_num(7.0), odd.nan_to_num(7.0))


def test_the_same_generator_rounds_alike() -> None:
    values = torch.randn(1000, generator=chance(5))
    first, again, other = (round_stochastically(values, torch.bfloat16, chance(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def learner(precision: str, parameters: list[nn.Parameter], **settings: Any) -> Learning:
    made = TrainSettings.model_validate({"lora_precision": precision, "lr_scheduler": "constant", **settings})
    groups = [ParameterGroup("unet", made.learning_rate, parameters)]
    return Learning(groups, made, 100, scaled=False, allowed_optimizers=[str(made.optimizer_class)])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_steps_below_the_grid_are_made_on_average(precision: str) -> None:
    """100 steps of 1e-4 from 1: below half of the distance to the next number, where rounding to nearest stays at 1."""
    parameter = nn.Parameter(torch.ones(4096))
    learning = learner(precision, [parameter], optimizer="sgd", learning_rate=1e-4, max_grad_norm=0.0)
    for _ in range(100):
        learning.backward(parameter.float().sum())
        learning.apply_gradients(learning.advance())
    assert parameter.dtype == FORMATS[precision]  # type: ignore[index]
    assert torch.finfo(parameter.dtype).eps / 4 > 1e-4
    # each number walks 100 times with a deviation below sqrt(distance * 1e-4)
    error = 5 * (100 * torch.finfo(parameter.dtype).eps * 1e-4) ** 0.5 / 64
    assert float(parameter.detach().double().mean()) == pytest.approx(0.99, abs=error)


def test_gradients_are_added_up_in_float32() -> None:
    """256 + 1 is 256 in bfloat16."""
    parameter = nn.Parameter(torch.zeros(3))
    learning = learner("bf16", [parameter], optimizer="sgd")
    for factor in (256.0, 1.0):
        learning.backward((parameter * factor).sum())
    assert parameter.grad is not None and parameter.grad.tolist() == [257.0] * 3


def test_small_gradients_get_through_float16() -> None:
    """1e-9 is 0 there, unless the loss is multiplied up."""
    parameter = nn.Parameter(torch.ones(4))
    learning = learner("fp16", [parameter])
    learning.backward((parameter.float() * 1e-9).sum())
    assert float(learning.apply_gradients(learning.advance())[1]) == pytest.approx(2e-9, rel=1e-2)


OPTIMIZERS = ["adamw", "lion", "sgd", "adafactor", "torch.optim.NAdam"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_is_exact_and_the_state_is_small(name: str, precision: str, tmp_path: Path) -> None:
    if name == "lion":
        pytest.importorskip("lion_pytorch", reason="the package lion-pytorch is not installed")
    arguments = {"sgd": {"momentum": 0.9}}.get(name, {})
    settings = {"optimizer": name, "learning_rate": 0.01, "optimizer_args": arguments, "ema": 0.9}

    def fresh() -> tuple[Learning, list[nn.Parameter]]:
        shapes = [(5, 7), (3, 4), (6,)]
        parameters = [nn.Parameter(torch.randn(shape, generator=chance(number))) for number, shape in enumerate(shapes)]
        return learner(precision, parameters, **settings), parameters

    def steps(learning: Learning, parameters: list[nn.Parameter], count: int) -> None:
        for _ in range(count):
            loss = sum(((each.float() - 0.3) ** 2).sum() for each in parameters)
            learning.backward(loss / 100)  # type: ignore[arg-type]
            learning.apply_gradients(learning.advance())

    whole, expected = fresh()
    steps(whole, expected, 6)
    first, first_parameters = fresh()
    steps(first, first_parameters, 3)
    torch.save(first.state(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    dtype = FORMATS[precision]  # type: ignore[index]
    assert {each.dtype for each in state["parameters"]} == {dtype}
    assert {each.dtype for each in state["ema"]} == {torch.float32}
    shaped = [value for value in _tensors(state["optimizer"]["state"]) if value.shape in ((5, 7), (3, 4), (6,))]
    assert shaped and {value.dtype for value in shaped} == {state_format(dtype)}
    second, parameters = fresh()
    second.load_state(state)
    steps(second, parameters, 3)
    assert all(torch.equal(*pair) for pair in zip(parameters, expected, strict=True))
    assert not torch.equal(parameters[0], first_parameters[0])


def _tensors(states: dict[int, dict[str, Any]]) -> list[Tensor]:
    return [value for state in states.values() for value in state.values() if isinstance(value, Tensor)]


def test_a_step_is_made_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more float32 numbers than a chunk's; one larger layer is a chunk of its own. At once: all together."""
    monkeypatch.setattr(weight_format, "CHUNK_NUMBERS", 10)
    parameters = [nn.Parameter(torch.ones(size)) for size in (4, 5, 3, 20, 2)]
    for at_once, expected in ((False, [9, 3, 20, 2]), (True, [34])):
        settings = TrainSettings(optimizer="sgd", learning_rate=0.5)
        optimizer = make_optimizer([ParameterGroup("unet", 0.5, parameters)], settings)
        weight_format.use_format(parameters, torch.bfloat16)
        seen: list[int] = []
        plain = optimizer.step

        def step(plain: Any = plain, seen: list[int] = seen) -> None:
            seen.append(sum(each.numel() for each in parameters if each.dtype == torch.float32))
            plain()

        optimizer.step = step  # type: ignore[method-assign, assignment]
        before = [parameter.float() for parameter in parameters]
        for parameter in parameters:
            parameter.grad = torch.ones(parameter.shape)
        step_rounded(optimizer, torch.bfloat16, chance(), at_once=at_once)
        assert seen == expected
        assert all(torch.equal(p.float(), old - 0.5) for p, old in zip(parameters, before, strict=True)), "each once"
        assert all(parameter.grad is None for parameter in parameters)


def test_a_checkpoint_of_another_format_is_refused() -> None:
    saved = learner("bf16", [nn.Parameter(torch.ones(2))]).state()
    with pytest.raises(ValueError, match="was in bf16, now it is in float32"):
        learner("float32", [nn.Parameter(torch.ones(2))]).load_state(saved)


def test_the_running_mean_of_sixteen_bits_is_in_float32() -> None:
    parameter = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    ema = Ema([parameter], 0.9999)
    parameter.data.fill_(2.0)
    ema.take_in(torch.tensor(ema.share_at(10**6)))
    with ema.applied():
        assert parameter.tolist() == pytest.approx([1.0001] * 2, abs=1e-6)
    assert parameter.dtype == torch.bfloat16 and parameter.tolist() == [2.0] * 2


@pytest.mark.parametrize("name", ["prodigy", "dadapt_adam", "schedule_free_adamw"])
def test_optimizers_that_need_more_digits_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"lora_precision bf16 rounds away .*{name}"):
        TrainSettings.model_validate({"optimizer": name, "lora_precision": "bf16", "lr_scheduler": "constant"})


@pytest.mark.parametrize(("lora", "told"), [({"type": "dora"}, "dora"), ({"max_norm": 1.0}, "max_norm")])
def test_adapters_that_need_more_digits_are_refused(lora: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        parse_config({"train": {"lora_precision": "fp16"}, "lora": lora})
    assert caught.value.problems[0].field == "train"
    assert Config.model_validate({"lora": lora})


def test_a_schedule_free_class_is_refused_too() -> None:
    pytest.importorskip("schedulefree", reason="the package schedulefree is not installed")
    with pytest.raises(UserError, match="lora_precision float32"):
        learner("bf16", [nn.Parameter(torch.ones(2))], optimizer="schedulefree.SGDScheduleFree")
