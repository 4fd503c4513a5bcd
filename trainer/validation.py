"""The loss on pictures that are held back, with the same noise and noise levels each time, so that it is comparable."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainer.config import Config
from trainer.data.training_set import Batch
from trainer.devices import autocast, compute_dtype, seeded_generator
from trainer.families.base import Conditioning, Family
from trainer.losses import loss_per_picture
from trainer.noise import add_noise, prediction_target

NOISE_LEVELS = 4
"""Noise levels tried per picture, evenly spread over those that are trained."""


@torch.no_grad()
def validation_loss(
    family: Family,
    config: Config,
    batches: list[Batch],
    encode: Callable[[list[str]], Conditioning],
    device: torch.device,
) -> float:
    """Mean unweighted loss over the pictures of ``batches`` and four noise levels each."""
    alphas = family.alphas_cumprod.to(device)
    dtype = compute_dtype(config.train.mixed_precision, device)
    total, count = torch.zeros((), device=device), 0
    for index, batch in enumerate(batches):
        latents = batch.latents.to(device)  # (B, 4, h, w)
        for level in range(NOISE_LEVELS):
            generator = seeded_generator(config.train.seed, "validation", index, level)
            noise = torch.randn(batch.latents.shape, generator=generator).to(device)  # (B, 4, h, w)
            timesteps = torch.full((len(latents),), _timestep(level, config), device=device)  # (B,)
            noisy = add_noise(latents, noise, alphas, timesteps)  # (B, 4, h, w)
            with autocast(device, dtype):
                condition = encode(batch.captions)  # (B, T, C)
                prediction = family.predict(noisy, timesteps, condition, batch.sizes)  # (B, 4, h, w)
            target = prediction_target(family.prediction_type, latents, noise, alphas, timesteps)  # (B, 4, h, w)
            total += loss_per_picture(prediction, target, config.loss).sum()
            count += len(latents)
    return float(total) / count


def _timestep(level: int, config: Config) -> int:
    low, high = config.loss.min_timestep, config.loss.max_timestep
    return low + int((level + 0.5) / NOISE_LEVELS * (high - low))
