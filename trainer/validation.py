"""The loss on pictures that are not trained on, always with the same noise at the same noise levels.

A training loss jumps with the noise level that was drawn; it says little. Here every picture is tried at the same K
timesteps with the same M noises, in every validation and in every run of the same seed: a difference is learning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from trainer.conditioning import CaptionEncoder
from trainer.config import Config, LossSettings
from trainer.data.training_set import Batch
from trainer.devices import autocast, compute_dtype, seeded_generator, widest_dtype
from trainer.evaluation import without_dropout
from trainer.families.base import Family
from trainer.losses import mean_per_picture
from trainer.noise import add_noise, prediction_target
from trainer.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Band:
    """A part of the trained timesteps, and the one in its middle that stands for it.

    Attributes:
        low: first timestep of the band.
        high: the timestep after its last.
        timestep: where it is measured.
    """

    low: int
    high: int
    timestep: int


@dataclass(frozen=True)
class ValidationLoss:
    """Mean squared errors: ``total`` over everything, ``bands`` one for each band of timesteps."""

    total: float
    bands: list[float]


def timestep_bands(settings: LossSettings, count: int) -> list[Band]:
    """``count`` bands of equal width over the timesteps that are trained, from little noise to much."""
    low, width = settings.min_timestep, (settings.max_timestep - settings.min_timestep) / count
    edges = [low + int(number * width) for number in range(count + 1)]
    return [Band(start, end, low + int((number + 0.5) * width)) for number, (start, end) in enumerate(pairwise(edges))]


def bands_told(config: Config, loss: ValidationLoss) -> list[dict[str, float]]:
    """The bands of a loss as its event tells them: ``from``, ``to``, ``timestep`` and ``loss``."""
    bands = timestep_bands(config.loss, config.validation.timesteps)
    return [
        {"from": band.low, "to": band.high, "timestep": band.timestep, "loss": value}
        for band, value in zip(bands, loss.bands, strict=True)
    ]


@torch.no_grad()
def validation_loss(
    family: Family,
    config: Config,
    batches: list[Batch],
    encode: CaptionEncoder,
    device: torch.device,
    ranks: Ranks = ALONE,
    after_batch: Callable[[], None] = lambda: None,
) -> ValidationLoss:
    """The unweighted mean squared error over all pictures, timesteps and noises, in evaluation mode (dropout off).

    With masks it is that of what they show.

    Always squared errors, whatever loss is trained with, so that runs with different losses can be compared. The noise
    depends on the seed, the picture's place among the validation pictures and the number of the noise alone.

    Args:
        family: the model as it is now.
        config: the run's settings.
        batches: of the pictures that are not trained on.
        encode: captions to what the denoiser reads.
        device: where the model is.
        ranks: the processes that share the batches; each gets the whole result.
        after_batch: called after each.
    """
    bands = timestep_bands(config.loss, config.validation.timesteps)
    sums = torch.zeros(len(bands), dtype=widest_dtype(device), device=device)
    firsts = [0, *accumulate(len(batch.captions) for batch in batches)]
    with ranks.agreed(), without_dropout(family):
        for (first, batch), counts in ranks.rounds(list(zip(firsts, batches, strict=False))):
            losses = _losses(family, config, batch, _noises(batch.latents, first, config), bands, encode, device)
            sums += losses if counts else 0
            after_batch()
    means = (ranks.total(sums) / (firsts[-1] * config.validation.noises)).tolist()
    return ValidationLoss(sum(means) / len(means), means)


def _noises(latents: Tensor, first: int, config: Config) -> list[Tensor]:
    """M noises (B, C, h, w) for pictures ``first`` and following."""
    seed, shape = config.train.seed, latents.shape[1:]

    def noise(picture: int, number: int) -> Tensor:
        return torch.randn(shape, generator=seeded_generator(seed, "validation", picture, number))

    pictures = range(first, first + len(latents))
    return [torch.stack([noise(each, number) for each in pictures]) for number in range(config.validation.noises)]


def _losses(
    family: Family,
    config: Config,
    batch: Batch,
    noises: list[Tensor],
    bands: list[Band],
    encode: CaptionEncoder,
    device: torch.device,
) -> Tensor:
    """The batch's squared errors in each band, added up over its pictures and noises: (K,)."""
    alphas = family.alphas_cumprod.to(device)
    latents = batch.latents.to(device)  # (B, C, h, w)
    masks = None if batch.masks is None else batch.masks.to(device)  # (B, 1, h, w)
    sums = torch.zeros(len(bands), dtype=widest_dtype(device), device=device)
    with autocast(device, compute_dtype(config.train.mixed_precision, device)):
        condition = encode(batch.captions)
        for noise in (each.to(device) for each in noises):  # (B, C, h, w)
            for number, band in enumerate(bands):
                timesteps = torch.full((len(latents),), band.timestep, device=device)  # (B,)
                noisy = add_noise(latents, noise, alphas, timesteps)  # (B, C, h, w)
                prediction = family.predict(noisy, timesteps, condition, batch.sizes)  # (B, C, h, w)
                target = prediction_target(family.prediction_type, latents, noise, alphas, timesteps)
                errors = (prediction.float() - target.float()).square()  # (B, C, h, w)
                losses = mean_per_picture(errors, masks, config.loss.unmasked_weight)  # (B,)
                sums[number] += losses.to(sums.dtype).sum()
    return sums
