"""A learning rate of 0 freezes: no gradient, no part in clipping, no place in the optimizer, no change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.recipe.single_steps import batch_of, made_of, values
from trainer.config import Config
from trainer.plan_warnings import about_optimizer
from trainer.recipe import train_step

FROZEN = {
    "a block": {"lora__block_lrs": {r"^unet\.down_blocks": 0}},
    "the text encoder": {"train__text_encoder_learning_rate": 0},
}


@pytest.mark.parametrize("what", FROZEN)
def test_frozen_layers_have_no_part_in_a_step(config_of: Callable[..., Config], what: str) -> None:
    """Beside the same step with nothing frozen: its gradient without theirs is what is clipped."""
    shared = {
        "lora__train": "both",
        "lora__target": "attention",
        "lora__max_norm": 0.01,
        "train__max_grad_norm": 1e-3,
        "train__optimizer_args": {"weight_decay": 0.5},
    }
    all_made, all_learning, all_trainables = made_of(config_of(**shared))
    train_step(all_made, all_learning, batch_of)
    made, learning, trainables = made_of(config_of(**shared, **FROZEN[what]))
    before = [parameter.detach().clone() for parameter in values(trainables)]
    frozen = [not parameter.requires_grad for parameter in values(trainables)]
    assert 0 < sum(frozen) < len(frozen)
    _, norm, _ = train_step(made, learning, batch_of).tolist()

    clipped = [all_learning.gradients[parameter].norm() for parameter in values(all_trainables)]
    shares = torch.stack(clipped) / 1e-3  # of the whole gradient's length
    moving = torch.tensor([not each for each in frozen])
    _, whole, _ = train_step(*made_of(config_of(**shared))[:2], batch_of).tolist()
    assert norm == pytest.approx(whole * float(shares[moving].norm()), rel=1e-3) and norm < 0.999 * whole
    in_optimizer = {id(parameter) for group in learning.optimizer.param_groups for parameter in group["params"]}
    for parameter, value, is_frozen in zip(values(trainables), before, frozen, strict=True):
        assert (parameter not in learning.gradients) == is_frozen == (id(parameter) not in in_optimizer)
        assert torch.equal(parameter, value) == is_frozen, "weight decay and the norm limit are changes too"


def test_a_run_without_rates_measures_and_is_warned_of(config_of: Callable[..., Config]) -> None:
    config = config_of(train__learning_rate=0, lora__target="attention", train__optimizer_args={"weight_decay": 0.5})
    ingredients, learning, trainables = made_of(config)
    before = [parameter.detach().clone() for parameter in values(trainables)]
    loss, norm, _ = train_step(ingredients, learning, batch_of).tolist()
    assert loss > 0 and norm > 0
    assert all(torch.equal(*pair) for pair in zip(values(trainables), before, strict=True))
    assert [problem.code for problem in about_optimizer(config.train)] == ["train.nothing_learns"]
    text_only = config.train.model_copy(update={"text_encoder_learning_rate": 1e-4})
    assert not list(about_optimizer(text_only))
