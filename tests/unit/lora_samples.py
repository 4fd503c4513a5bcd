"""Small random LoRAs for tests."""

from __future__ import annotations

import torch

from trainer.lora.file import LoraFile, LoraLayer

QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


def linear(rank: int, alpha: float, *, seed: int, inputs: int = 12, outputs: int = 10) -> LoraLayer:
    """A random linear layer."""
    random = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, inputs, generator=random)
    return LoraLayer(down, torch.randn(outputs, rank, generator=random), alpha)


def conv(rank: int, alpha: float, *, seed: int, kernel: int = 3, inputs: int = 6, outputs: int = 8) -> LoraLayer:
    """A random convolution."""
    random = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, inputs, kernel, kernel, generator=random)
    return LoraLayer(down, torch.randn(outputs, rank, 1, 1, generator=random), alpha)


def lora(rank: int = 4, alpha: float = 2.0, *, seed: int = 0, **metadata: str) -> LoraFile:
    """A LoRA with a linear layer, a convolution and a text encoder layer."""
    layers = {
        QUERY: linear(rank, alpha, seed=seed),
        CONV: conv(rank, alpha, seed=seed + 1),
        TEXT: linear(rank, alpha, seed=seed + 2, inputs=8, outputs=8),
    }
    return LoraFile(layers, metadata)
