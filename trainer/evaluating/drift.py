"""How far a LoRA moves a model where it should not: its predictions for prompts without the trigger.

The base model draws a picture of each prompt; noise is added to it, and the model with the LoRA predicts beside the
model without it. The measure is the length of the difference as a share of the length of the base model's prediction,
over all prompts and noise levels: 0 for a LoRA that leaves these prompts alone. It needs no other model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.devices import autocast, seeded_generator
from trainer.evaluation import without_dropout
from trainer.families.base import Conditioning, Family
from trainer.noise import add_noise


@dataclass(frozen=True)
class Probe:
    """A prompt without the trigger, with the base model's own picture of it.

    Attributes:
        latents: (1, C, h, w) float32 of the picture, on the CPU.
        condition: what the text encoders without the LoRA make of the prompt.
        prompt: the text.
    """

    latents: Tensor
    condition: Conditioning
    prompt: str


def relative_distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """``sqrt(sum |with - without|^2 / sum |without|^2)`` over (with, without) pairs, in float64; 0 for two zeros."""
    moved = sum(float((now.double() - before.double()).square().sum()) for now, before in pairs)
    whole = sum(float(before.double().square().sum()) for _, before in pairs)
    return math.sqrt(moved / whole) if whole else 0.0


@torch.no_grad()
def predictions(
    family: Family, probe: Probe, condition: Conditioning, timesteps: Sequence[int], seed: int, dtype: torch.dtype
) -> list[Tensor]:
    """The model's predictions for a probe at each timestep, (1, C, h, w) float32 on the CPU.

    The noise depends on the seed, the prompt and the timestep alone.
    """
    device = next(family.denoiser.parameters()).device
    alphas, latents = family.alphas_cumprod.to(device), probe.latents.to(device)
    height, width = (side * family.latent_scale for side in latents.shape[-2:])
    sizes = torch.tensor([[height, width, 0, 0, height, width]])
    found = []
    with without_dropout(family), autocast(device, dtype):
        for timestep in timesteps:
            generator = seeded_generator(seed, "drift", probe.prompt, timestep)
            noise = torch.randn(latents.shape, generator=generator).to(device)
            at = torch.full((1,), timestep, device=device)
            found.append(family.predict(add_noise(latents, noise, alphas, at), at, condition, sizes).float().cpu())
    return found
