"""The estimated memory against bytes that were counted: what autograd keeps, and what optimizers keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn

from trainer.config import Config, Optimizer
from trainer.estimates import Memory, training_memory
from trainer.model_sizes import ModelSizes
from trainer.optimizers import make_optimizer
from trainer.parameter_groups import ParameterGroup
from trainer.usual_models import CHANNELS, VAE_PARAMETERS, usual_model

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
LAYERS = {"attention": ATTENTION, "attention_ff": [*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]}
BACKWARD_BESIDES = 1.25
"""What a step takes at its peak relative to what the forward pass keeps; see ``trainer/estimates.py`` on its fit."""


def estimated(side_px: int, **changes: Any) -> tuple[Config, Memory]:
    """A step of Stable Diffusion 1.5 in 16 bits on a GPU."""
    config = Config.model_validate({"name": "x", **changes})
    usual = usual_model("sd15")
    sizes = ModelSizes(
        denoiser=usual.denoiser,
        text=usual.text,
        vae=VAE_PARAMETERS,
        channels=CHANNELS,
        text_width=usual.text_width,
        lora=usual.lora(config.lora),
        depth=usual.depth,
        known=True,
        adapted=usual.adapted[config.lora.target],
    )
    return config, training_memory(config, sizes, side_px**2)


class _Flash(torch.autograd.Function):
    """Attention as kernels without a matrix of scores do it: q, k, v, the result and a number a row are kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, result, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return result


def kept_bytes(target: str, side_px: int) -> int:
    """What autograd keeps of a forward pass of SD 1.5, weights aside. On the meta device: shapes without numbers."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(attention_head_dim=8, cross_attention_dim=768).to(torch.bfloat16)
        unet.requires_grad_(False)
        unet.add_adapter(LoraConfig(r=16, target_modules=LAYERS[target]))
        latents = torch.empty(1, 4, side_px // 8, side_px // 8, dtype=torch.bfloat16)
        texts = torch.empty(1, 77, 768, dtype=torch.bfloat16)
        weights = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
        kept: dict[int, Tensor] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.setdefault(tensor.untyped_storage()._cdata, tensor), lambda tensor: tensor
        ):
            prediction = unet.train()(latents, torch.zeros(1), texts).sample
    assert prediction.requires_grad
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)


@pytest.mark.parametrize("target", LAYERS)
def test_activations_against_what_autograd_keeps(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda query, key, value, **_: _Flash.apply(query, key, value),
    )
    counted = kept_bytes(target, 512)
    _, memory = estimated(512, lora={"target": target}, train={"mixed_precision": "bf16"})
    assert memory.activations == pytest.approx(BACKWARD_BESIDES * counted, rel=0.15)


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "sgd", "prodigy", "schedule_free_adamw", "dadapt_adam"])
def test_optimizers_keep_what_is_said(optimizer: Optimizer) -> None:
    settings = {"optimizer": optimizer, "learning_rate": 1.0, "lr_scheduler": "constant"}
    arguments = {"momentum": 0.9} if optimizer == "sgd" else {}
    config, memory = estimated(512, train={**settings, "optimizer_args": arguments})
    weights = nn.Parameter(torch.ones(640, 16))
    made = make_optimizer([ParameterGroup("unet", 1.0, [weights])], config.train)
    (weights**2).sum().backward()
    made.step()
    states = [each for each in made.state[weights].values() if isinstance(each, Tensor) and each.numel() > 1]
    kept = sum(each.numel() * each.element_size() for each in states)
    lora = memory.lora // 4
    assert memory.optimizer / lora == pytest.approx(kept / weights.numel(), rel=0.15)
    assert weights.grad is not None
    assert memory.gradients / lora == weights.grad.element_size() == weights.element_size()
