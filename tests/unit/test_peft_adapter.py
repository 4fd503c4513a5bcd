"""PEFT's layers on a large model: each with its own rank and alpha, told to PEFT in few words."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer as PeftLayer
from torch import nn

from trainer.config import LoraSettings
from trainer.families.sdxl import FULL_UNET
from trainer.lora.dropout import Draws
from trainer.lora.peft_adapter import ADAPTER, add_peft_adapters

Plan = tuple[int, float]


def plan_of(name: str, layer: nn.Module) -> Plan:
    """Ranks and alphas of convolutions, of a block and of the rest; alphas that are no whole numbers too."""
    if isinstance(layer, nn.Conv2d):
        return 4, 2.5
    if name.startswith("mid_block"):
        return 8, 16.0
    return (16, 1.0) if name.endswith("ff.net.2") else (16, 16.0)


def on_meta_with(plans: dict[str, Plan]) -> tuple[UNet2DConditionModel, dict[str, Plan]]:
    """SDXL's whole UNet without memory for its weights, and the rank and alpha of each layer that PEFT made."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**FULL_UNET)
        add_peft_adapters(unet, [(name, *plan) for name, plan in plans.items()], LoraSettings(), Draws())
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, PeftLayer)}
    return unet, {
        name: (layer.lora_A[ADAPTER].weight.shape[0], layer.scaling[ADAPTER] * layer.r[ADAPTER])
        for name, layer in layers.items()
    }


def test_every_layer_of_sdxl_gets_its_rank_and_alpha_by_a_handful_of_patterns() -> None:
    """A pattern for each layer took PEFT a minute: it compiles and tries every one on every layer."""
    with torch.device("meta"):
        bare = UNet2DConditionModel(**FULL_UNET)
    plans = {
        name: plan_of(name, layer)
        for name, layer in bare.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and ("attentions" in name or "resnets" in name)
    }
    unet, found = on_meta_with(plans)
    assert len(plans) > 700 and found == plans
    settings = unet.peft_config[ADAPTER]
    assert (settings.r, settings.lora_alpha) == (16, 16.0), "what most layers have"
    assert len(settings.rank_pattern) == 2 and len(settings.alpha_pattern) == 2


class Small(nn.Module):
    """Layers of like names in a module that takes adapters as diffusers' and transformers' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv1, self.conv11, self.aXb = (nn.Linear(8, 8) for _ in range(4))
        self.a = nn.ModuleDict({"b": nn.Linear(8, 8)})
        self.block = nn.ModuleDict({"conv1": nn.Linear(8, 8), "a": nn.ModuleDict({"b": nn.Linear(8, 8)})})

    def add_adapter(self, config: LoraConfig, adapter_name: str) -> None:
        inject_adapter_in_model(config, self, adapter_name)


def test_names_that_begin_or_end_alike_are_told_apart() -> None:
    """``conv1`` of the model itself is no ``block.conv1``, ``conv1`` no ``conv11``, and a dot no other letter."""
    names = ["first", "conv1", "a.b", "aXb", "conv11", "block.conv1", "block.a.b"]
    plans = {name: (rank, 2.5 * rank) for rank, name in enumerate(names, 1)}
    model = Small()
    add_peft_adapters(model, [(name, *plan) for name, plan in plans.items()], LoraSettings(), Draws())
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, PeftLayer)}
    assert {name: (layer.r[ADAPTER], layer.lora_alpha[ADAPTER]) for name, layer in layers.items()} == plans
