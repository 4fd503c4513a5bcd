"""Kohya keys back to dotted paths, for every layer of the real SD 1, SD 2 and SDXL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from trainer.families.sdxl import FULL_UNET
from trainer.lora.keys import kohya_key
from trainer.lora.module_paths import module_path

CONFIGS = Path(__file__).resolve().parents[2] / "trainer" / "single_file" / "configs"


def unet(family: str) -> nn.Module:
    settings = FULL_UNET if family == "sdxl" else json.loads((CONFIGS / family / "unet.json").read_text())
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(settings)


def paths(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


@pytest.mark.parametrize(("family", "count"), [("sd1", 270), ("sd2", 270), ("sdxl", 790)])
def test_every_layer_of_a_unet_has_its_path_back(family: str, count: int) -> None:
    names = paths(unet(family))
    assert len(names) > count
    for name in names:
        assert module_path(kohya_key("unet", name)) == ("unet", name)
        assert module_path(kohya_key("unet", name, sdxl=family == "sdxl")) == ("unet", name)


@pytest.mark.parametrize(("part", "sdxl"), [("text_encoder", False), ("text_encoder", True), ("text_encoder_2", True)])
def test_every_layer_of_a_text_encoder_has_its_path_back(part: str, sdxl: bool) -> None:
    with torch.device("meta"):
        config = CLIPTextConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=12, num_attention_heads=2)
        names = paths(CLIPTextModel(config))
    assert len(names) == 12 * 6
    for name in names:
        full = name if name.startswith("text_model.") else f"text_model.{name}"
        assert module_path(kohya_key(part, name, sdxl=sdxl)) == (part, full)
    assert module_path(kohya_key(part, "text_projection", sdxl=sdxl)) == (part, "text_projection")


@pytest.mark.parametrize("key", ["lora_unet_", "lora_unet_down_blocks_0_strange_1", "lora_other_conv_in", "conv_in"])
def test_unknown_words_have_no_path(key: str) -> None:
    assert module_path(key) is None
