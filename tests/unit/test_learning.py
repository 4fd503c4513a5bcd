"""What learns: clipping that clips, updates that are left out, loss scaling, and going on from a saved state."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainer.config import TrainSettings
from trainer.learning import Learning
from trainer.parameter_groups import ParameterGroup


def learning(scaled: bool = False, **settings: object) -> tuple[Learning, nn.Parameter]:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    settings = {"learning_rate": 0.1, "lr_scheduler": "constant", "optimizer": "sgd", **settings}
    groups = [ParameterGroup("unet", 0.1, [parameter])]
    return Learning(groups, TrainSettings(**settings), 10, scaled=scaled), parameter  # type: ignore


def test_gradients_are_clipped_and_their_length_before_is_told() -> None:
    learner, parameter = learning(max_grad_norm=0.5)
    learner.backward((parameter * torch.tensor([3.0, 4.0])).sum())
    assert float(learner.clip_gradients()) == pytest.approx(5.0)
    learner.update(5.0)
    # gradient (3, 4) shortened to (0.3, 0.4), times the learning rate
    torch.testing.assert_close(parameter.detach(), torch.tensor([1 - 0.03, 2 - 0.04]))


def test_no_limit_leaves_gradients_alone() -> None:
    learner, parameter = learning(max_grad_norm=0.0)
    learner.backward((parameter * torch.tensor([3.0, 4.0])).sum())
    learner.update(float(learner.clip_gradients()))
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.7, 1.6]))


@pytest.mark.parametrize("scaled", [False, True])
def test_a_gradient_that_is_not_finite_changes_nothing(scaled: bool) -> None:
    learner, parameter = learning(scaled, optimizer="adamw", ema=0.9)
    for step, factor in enumerate((1.0, math.nan, math.inf, 1.0)):
        before = parameter.detach().clone()
        learner.backward((parameter * factor).sum())
        norm = float(learner.clip_gradients())
        learner.update(norm)
        assert torch.equal(parameter, before) == (not math.isfinite(factor))
        assert learner.step == step + 1
        assert learner.skipped == {0: 0, 1: 1, 2: 2, 3: 0}[step]
    assert torch.isfinite(parameter).all() and all(torch.isfinite(mean).all() for mean in learner.state()["ema"])


def test_loss_scaling_changes_no_update() -> None:
    results = []
    for scaled in (False, True):
        learner, parameter = learning(scaled)
        for _ in range(3):
            learner.backward((parameter**2).sum())
            learner.update(float(learner.clip_gradients()))
        results.append(parameter.detach().clone())
    torch.testing.assert_close(*results)


def test_a_saved_state_goes_on_exactly(tmp_path) -> None:
    def steps(learner: Learning, parameter: nn.Parameter, count: int) -> None:
        for _ in range(count):
            learner.backward((parameter**3).sum())
            learner.update(float(learner.clip_gradients()))

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
