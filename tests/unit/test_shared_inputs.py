"""Attention with one product for what reads one input: what diffusers and PEFT compute, and no weight changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from peft.tuners.lora import Conv2d, Linear
from torch import Tensor

from trainer.config import LoraSettings, ModelSettings
from trainer.families import random_family
from trainer.families.base import Conditioning, Family
from trainer.lora import lora_product
from trainer.lora.adapter import add_adapters, without_adapters
from trainer.lora.lora_product import LoraLinear, LoraPointwise
from trainer.lora.shared_inputs import SharedInputProcessor


def adapted(name: str, settings: LoraSettings) -> tuple[Family, dict[str, Tensor]]:
    """A small random model with a random LoRA, and its weights before."""
    torch.manual_seed(4)
    family = random_family(ModelSettings(family=name), "demo", device=torch.device("cpu"), dtype=torch.float32)
    before = {key: value.clone() for key, value in family.denoiser.state_dict().items()}
    for item in add_adapters(family, settings, seed=1):
        if item.is_up:
            item.parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
    return family, before


def as_peft_computes(family: Family) -> Any:
    """A copy whose layers and attention are PEFT's and diffusers' own."""
    twin: Any = copy.deepcopy(family)
    for module in twin.denoiser.modules():
        if type(module) in (LoraLinear, LoraPointwise):
            module.__class__ = Linear if type(module) is LoraLinear else Conv2d
        elif isinstance(module, Attention):
            module.set_processor(AttnProcessor2_0())
    return twin


def step(family: Any) -> tuple[Tensor, list[Tensor]]:
    """A prediction for two pictures, and the gradients of all that learns."""
    generator = torch.Generator().manual_seed(3)
    unet = family.denoiser
    unet.zero_grad()
    states = torch.randn(2, 77, unet.config.cross_attention_dim, generator=generator)
    pooled = {"pooled": torch.randn(2, 64, generator=generator)} if unet.config.addition_embed_type else {}
    noisy, sizes = torch.randn(2, 4, 16, 8, generator=generator), torch.tensor([[128, 64, 0, 0, 128, 64]] * 2)
    prediction = family.predict(noisy, torch.tensor([10, 900]), Conditioning(states, pooled), sizes)
    prediction.square().mean().backward()
    return prediction.detach(), [each.grad for each in unet.parameters() if each.requires_grad]


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_a_step_is_that_of_diffusers_and_peft(name: str) -> None:
    family, _ = adapted(name, LoraSettings(rank=4, alpha=6, target="attention_ff", block_ranks={"to_k": 2}))
    attentions = [module for module in family.denoiser.modules() if isinstance(module, Attention)]
    assert attentions and all(type(each.processor) is SharedInputProcessor for each in attentions)
    (ours, gradients), (theirs, other) = step(family), step(as_peft_computes(family))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert len(gradients) == len(other) > 100
    for own, their in zip(gradients, other, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-3, atol=1e-5 * float(their.abs().max()) + 1e-9)


def test_no_weight_changes_and_without_adapters_the_model_is_as_it_was() -> None:
    family, before = adapted("sd1", LoraSettings(rank=2, target="attention"))
    after = {key.replace(".base_layer", ""): value for key, value in family.denoiser.state_dict().items()}
    assert all(torch.equal(after[key], value) for key, value in before.items())
    plain = random_family(ModelSettings(), "demo", device=torch.device("cpu"), dtype=torch.float32)
    plain.denoiser.load_state_dict(before)
    inputs = (torch.ones(1, 4, 8, 8), torch.tensor([5]), Conditioning(torch.ones(1, 77, 64), {}), torch.zeros(1, 6))
    with torch.no_grad(), without_adapters(family):
        torch.testing.assert_close(family.predict(*inputs), plain.predict(*inputs))


def test_weights_that_moved_apart_are_joined_again_by_the_next_step() -> None:
    family, _ = adapted("sd1", LoraSettings(rank=2, target="attention"))
    expected, gradients = step(family)
    for parameter in family.denoiser.parameters():
        parameter.data = parameter.data.clone()  # as a move to a device and back leaves them
    assert not any(in_line(attention) for attention in joined_attentions(family))
    found, others = step(family)
    assert all(in_line(attention) for attention in joined_attentions(family))
    assert torch.equal(found, expected)
    assert all(torch.equal(mine, other) for mine, other in zip(gradients, others, strict=True))


def joined_attentions(family: Family) -> list[Attention]:
    return [module for module in family.denoiser.modules() if isinstance(module, Attention)]


def in_line(attention: Any) -> bool:
    """Whether the value's frozen weight begins in memory where the key's ends."""
    key, value = attention.to_k.base_layer.weight, attention.to_v.base_layer.weight
    return bool(value.data_ptr() == key.data_ptr() + key.numel() * key.element_size())


@pytest.mark.parametrize(
    "settings",
    [LoraSettings(rank=2, dropout=0.1), LoraSettings(rank=2, exclude=["to_k"]), LoraSettings(rank=2, type="dora")],
    ids=["dropout", "no key", "dora"],
)
def test_where_layers_are_not_alike_attention_stays_diffusers(settings: LoraSettings) -> None:
    family, _ = adapted("sd1", settings)
    attentions = [module for module in family.denoiser.modules() if isinstance(module, Attention)]
    assert all(type(each.processor) is AttnProcessor2_0 for each in attentions)


def test_a_graph_is_never_captured_of_weights_that_are_brought_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each replay would bring them together anew, from memory that is somebody else's by then."""
    family, _ = adapted("sd1", LoraSettings(rank=2, target="attention"))
    monkeypatch.setattr(lora_product, "is_capturing", lambda: True)
    step(family)
    for parameter in family.denoiser.parameters():
        parameter.data = parameter.data.clone()
    with pytest.raises(RuntimeError, match="lie apart"):
        step(family)
