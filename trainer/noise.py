"""Noise, noise levels and what the denoiser is asked for. Pure functions; every draw takes its generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import LossSettings, Multires
from trainer.data.rows import Rows


def among_all(latents: Tensor, rows: Rows) -> Tensor:
    """A process's latents (B, C, h, w) in their places of the whole batch, (W, C, h, w), where the others are zero.

    What is drawn for the whole batch, and cut to ``rows``, does not depend on how it is shared out.
    """
    if rows.are_all:
        return latents
    whole = latents.new_zeros(rows.whole, *latents.shape[1:])
    whole[rows.part] = latents
    return whole


def draw_noise(latents: Tensor, settings: LossSettings, generator: torch.Generator) -> Tensor:
    """Noise for latents (B, C, h, w), float32 on the CPU: normal, with the settings' offset and pyramid."""
    noise = torch.randn(latents.shape, generator=generator)
    if settings.noise_offset:
        noise = offset_noise(noise, offset_strengths(latents, settings, generator), generator)
    if settings.multires_noise:
        noise = pyramid_noise(noise, settings.multires_noise, generator)
    return noise


def offset_strengths(latents: Tensor, settings: LossSettings, generator: torch.Generator) -> Tensor:
    """How strong each channel's offset is, (B, C, 1, 1), at least 0.

    ``noise_offset``, or uniform below it for each picture, plus ``adaptive_noise_scale * |mean of the channel|`` (as
    sd-scripts, which draws one strength for the whole batch).
    """
    base = torch.full((len(latents), 1, 1, 1), settings.noise_offset)
    if settings.noise_offset_random_strength:
        base = base * torch.rand(base.shape, generator=generator)
    level = latents.detach().cpu().float().mean((2, 3), keepdim=True).abs()
    return (base + settings.adaptive_noise_scale * level).clamp(min=0)


def offset_noise(noise: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    """Noise that also shifts whole channels: ``noise + strength * N(0, 1)``, strengths (B, C, 1, 1).

    Guttenberg 2023, "Diffusion with Offset Noise": lets a model reach very dark and very bright pictures.
    """
    shift = torch.randn(*noise.shape[:2], 1, 1, generator=generator)
    return noise + strengths * shift


def pyramid_noise(noise: Tensor, settings: Multires, generator: torch.Generator) -> Tensor:
    """Noise (B, C, h, w) with noise of lower resolutions added, brought back to unit variance.

    Whitaker 2023, "Multi-resolution noise for diffusion model training": level i is ``discount ** i`` strong and
    smaller than the latents by ``r ** i``, with r drawn from [2, 4) for each level, as in sd-scripts. (In the report's
    own code each level is smaller than the one before by that, which leaves out most of the sizes between.)
    """
    height, width = noise.shape[2:]
    total = noise
    for level in range(settings.iterations):
        shrink = (2 + 2 * float(torch.rand((), generator=generator))) ** level
        low_height, low_width = max(1, int(height / shrink)), max(1, int(width / shrink))
        low = torch.randn(*noise.shape[:2], low_height, low_width, generator=generator)
        total = total + settings.discount**level * F.interpolate(low, size=(height, width), mode="bilinear")
        if low_height == 1 or low_width == 1:
            break
    return total / total.std()


def perturb(noise: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """The noise that is added, with extra noise that the target does not know of (Ning et al. 2023, 2301.11706)."""
    if not strength:
        return noise
    return noise + strength * torch.randn(noise.shape, generator=generator).to(noise)


def draw_timesteps(count: int, settings: LossSettings, generator: torch.Generator) -> Tensor:
    """Noise levels (B,) int64 in [min_timestep, max_timestep).

    Shares of that range by Esser et al. 2024 (2403.03206): ``logit_normal``, eq. 19, is the sigmoid of a normal number
    with the settings' mean and width; ``mode``, eq. 20, bends a uniform one.
    """
    low, high = settings.min_timestep, settings.max_timestep
    if settings.timestep_sampling == "uniform":
        return torch.randint(low, high, (count,), generator=generator)
    if settings.timestep_sampling == "logit_normal":
        normal = torch.randn(count, generator=generator)
        share = torch.sigmoid(settings.logit_mean + settings.logit_std * normal)
    else:
        share = _mode_share(torch.rand(count, generator=generator), settings.mode_scale)
    return (low + (share * (high - low)).long()).clamp_(low, high - 1)


def _mode_share(uniform: Tensor, scale: float) -> Tensor:
    return 1 - uniform - scale * ((math.pi / 2 * uniform).cos() ** 2 - 1 + uniform)


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Latents (B, C, h, w) at noise level t: ``sqrt(a_t) x + sqrt(1 - a_t) noise`` (Ho et al. 2020, eq. 4)."""
    kept = _per_picture(alphas_cumprod, timesteps)
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise


def velocity(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """``sqrt(a_t) noise - sqrt(1 - a_t) x`` (Salimans & Ho 2022, 2202.00512, section 4)."""
    kept = _per_picture(alphas_cumprod, timesteps)
    return kept.sqrt() * noise - (1 - kept).sqrt() * latents


def prediction_target(
    prediction_type: str, latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor
) -> Tensor:
    """What the denoiser should answer, (B, C, h, w): the noise, or the velocity. Raises ValueError for another type."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return velocity(latents, noise, alphas_cumprod, timesteps)
    raise ValueError(f"unknown prediction type {prediction_type!r}")


def signal_to_noise(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """SNR (B,): ``a_t / (1 - a_t)``."""
    kept = alphas_cumprod[timesteps]
    return kept / (1 - kept)


def _per_picture(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    return alphas_cumprod[timesteps].view(-1, 1, 1, 1)
