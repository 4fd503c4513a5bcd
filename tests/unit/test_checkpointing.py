"""What a denoiser computes again, when generators are read for it, and convolutions that keep nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from trainer.checkpointing import use_checkpointing
from trainer.config import ModelSettings
from trainer.families import load_family
from trainer.frozen_layers import FrozenConv2d, forget_inputs


@pytest.fixture(scope="module")
def denoiser() -> nn.Module:
    return load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32).denoiser


def answer_gradient(denoiser: nn.Module) -> Tensor:
    states = torch.ones(1, 77, denoiser.config.cross_attention_dim, requires_grad=True)
    denoiser(torch.ones(1, 4, 8, 8), torch.tensor([10]), encoder_hidden_states=states).sample.square().sum().backward()
    assert states.grad is not None
    return states.grad


@pytest.mark.parametrize("draws", [False, True])
def test_generators_are_read_only_where_something_draws(
    denoiser: nn.Module, monkeypatch: pytest.MonkeyPatch, draws: bool
) -> None:
    read: list[int] = []
    state = torch.get_rng_state
    monkeypatch.setattr(torch, "get_rng_state", lambda: read.append(1) or state())
    denoiser.train()
    use_checkpointing(denoiser, "all", draws=draws)
    answer_gradient(denoiser)
    assert bool(read) == draws


def test_a_choice_takes_the_place_of_the_one_before(denoiser: nn.Module) -> None:
    layers = [layer for layer in denoiser.modules() if isinstance(layer, FeedForward)]
    use_checkpointing(denoiser, "off")
    plain = answer_gradient(denoiser.train())
    for choice in ("some", "all", "some", "off"):
        use_checkpointing(denoiser, choice)
        assert denoiser.is_gradient_checkpointing == (choice == "all")
        assert all(("forward" in vars(layer)) == (choice == "some") for layer in layers) and layers
        torch.testing.assert_close(answer_gradient(denoiser), plain)


@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 1, "stride": 2}, {"groups": 2, "bias": False}])
def test_frozen_convolutions_keep_nothing_and_give_the_same(options: dict) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, **options).requires_grad_(False)
    model = nn.ModuleDict({"frozen": copy.deepcopy(plain), "trained": nn.Conv2d(4, 6, 3)})
    forget_inputs(model)
    assert type(model["frozen"]) is FrozenConv2d and type(model["trained"]) is nn.Conv2d
    assert [*model["frozen"].state_dict()] == [*plain.state_dict()], "its weight has the name that it had"
    results = []
    for layer in (plain, model["frozen"]):
        hidden = torch.randn(2, 4, 7, 9, generator=torch.Generator().manual_seed(1)).requires_grad_()
        kept: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each, kept=kept: kept.append(each) or each, lambda each: each
        ):
            output = layer(hidden)
        output.square().sum().backward()
        results.append((output, hidden.grad, len(kept)))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert results[0][2] > 0 and results[1][2] == 0
