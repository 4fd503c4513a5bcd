"""The sizes of the usual models, counted again on models built from their published configs (without weights)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from trainer.activations import unet_units
from trainer.config import LoraSettings
from trainer.usual_models import USUAL_MODELS, VAE_PARAMETERS, UsualModel, usual_model

UNETS: dict[str, dict[str, Any]] = {
    "Stable Diffusion XL": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "use_linear_projection": True,
    },
    "Stable Diffusion 2": {
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "Stable Diffusion 1.5": {"attention_head_dim": 8, "cross_attention_dim": 768},
}


def clip(width: int, layers: int, heads: int, projected: bool = False) -> nn.Module:
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=49408,
        projection_dim=width,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def texts_of(name: str) -> list[nn.Module]:
    if name == "Stable Diffusion XL":
        return [clip(768, 12, 12), clip(1280, 32, 20, projected=True)]
    return [clip(1024, 23, 16)] if name == "Stable Diffusion 2" else [clip(768, 12, 12)]


def count(*models: nn.Module) -> int:
    return sum(parameter.numel() for model in models for parameter in model.parameters())


def per_rank(layers: str, *models: nn.Module, whole: bool = False) -> int:
    """Inputs and outputs of the matching layers, or with ``whole`` the numbers in their weights."""
    found = 0
    for model in models:
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and re.search(layers, name):
                shape = module.weight.shape
                found += shape.numel() if whole else shape[1:].numel() + shape[0]
    return found


@pytest.mark.parametrize("usual", USUAL_MODELS, ids=lambda usual: usual.name)
def test_the_sizes_are_those_of_the_models(usual: UsualModel) -> None:
    with torch.device("meta"):
        unet, texts = UNet2DConditionModel(**UNETS[usual.name]), texts_of(usual.name)
    attention, feed_forward = r"attn[12]\.to_(q|k|v|out\.0)$", r"ff\.net\.(0\.proj|2)$|proj_(in|out)$"
    more = r"resnets\.\d+\.(time_emb_proj|conv_shortcut)$"
    assert (usual.denoiser, usual.text) == (count(unet), count(*texts))
    targets = {
        "attention": attention,
        "attention_ff": f"{attention}|{feed_forward}",
        "full": f"{attention}|{feed_forward}|{more}",
    }
    assert usual.unet_rank == {target: per_rank(layers, unet) for target, layers in targets.items()}
    assert usual.adapted == {target: per_rank(layers, unet, whole=True) for target, layers in targets.items()}
    assert usual.unet_conv_rank == per_rank(r"resnets\.\d+\.conv[12]$|samplers\.0\.conv$", unet)
    own = r"self_attn\.(q|k|v|out)_proj$"
    assert usual.text_rank == (per_rank(own, *texts), per_rank(rf"{own}|mlp\.fc[12]$", *texts))
    assert usual.text_width == sum(text.config.hidden_size for text in texts)  # type: ignore[attr-defined, misc]
    assert usual.units == unet_units({name: tuple(value.shape) for name, value in unet.state_dict().items()})


def test_the_transformer_blocks_by_hand() -> None:
    """SD 1.5: 5 blocks on each of three levels of 320, 640, 1280 (1, 1/2, 1/4 each), one of 1280 on the fourth."""
    assert USUAL_MODELS[-1].units.blocks == 5 * (1 + 1 / 2 + 1 / 4) + 1 / 16
    assert USUAL_MODELS[0].units.blocks == 5 * (2 / 2 + 10 / 4) + 10 / 4


def test_the_autoencoder() -> None:
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
    assert count(vae) == VAE_PARAMETERS


def test_a_lora_counts_what_it_is_put_on() -> None:
    usual = USUAL_MODELS[-1]
    assert usual.lora(LoraSettings(rank=4)) == 4 * 423_936
    assert usual.lora(LoraSettings(rank=4, conv_rank=2, target="full")) == 4 * 506_816 + 2 * 544_000
    assert usual.lora(LoraSettings(rank=4, train="text_encoder", target="attention")) == 4 * 73_728
    assert usual.lora(LoraSettings(rank=1, train="both")) == 423_936 + 165_888


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "Stable Diffusion XL"),
        ("OnomaAIResearch/Illustrious-xl-early-release-v0", "Stable Diffusion XL"),
        ("cagliostrolab/animagine-xl-4.0", "Stable Diffusion XL"),
        ("SG161222/RealVisXL_V5.0", "Stable Diffusion XL"),
        ("stabilityai/stable-diffusion-2-1", "Stable Diffusion 2"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "Stable Diffusion 1.5"),
        ("nobody/exlibris", "Stable Diffusion 1.5"),
    ],
)
def test_a_model_is_known_by_its_name(base: str, name: str) -> None:
    assert usual_model(base).name == name
