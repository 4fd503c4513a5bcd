"""The picture that is being drawn, long before its last step: a small one, made from what the denoiser just said.

No pipeline has to help: a denoiser is called with the noisy latents scaled to unit variance whichever sampler asks, so
its input and output give the latents without noise.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from trainer.denoising import Step
from trainer.families.base import Family
from trainer.files import atomic_path

LONGEST_PX = 256
_LEAST_SIGNAL = 1e-4
"""Of the variance: what a denoiser trained to pure noise finds at its first step cannot be scaled up to a picture."""


@torch.no_grad()
def live_picture(family: Family, step: Step, guidance: float) -> Image.Image:
    """The pictures of a batch side by side, no side longer than 256 px.

    Costs a few operations on numbers as few as the latents, see ``Family.rough_pixels``.

    Args:
        family: the model.
        step: the last that was taken.
        guidance: of the pictures.
    """
    guidance = 0.0 if family.reads_guidance else guidance
    noisy, output = step.noisy.float(), step.predicted.float()
    pixels = family.rough_pixels(denoised(family, noisy, step.timestep, output, guidance=guidance))  # (B, 3, h, w)
    row = torch.cat(list(pixels.clamp(-1, 1)), dim=2).permute(1, 2, 0)  # (h, B * w, 3)
    small = Image.fromarray(((row + 1) * 127.5).round().to("cpu", torch.uint8).numpy())
    larger = min(float(family.latent_scale), LONGEST_PX / max(small.size))
    return small.resize((round(small.width * larger), round(small.height * larger)), Image.Resampling.BICUBIC)


def save_live_picture(path: Path, family: Family, step: Step, guidance: float) -> None:
    """Write the live picture as JPEG in place of an earlier one."""
    image = live_picture(family, step, guidance)
    with atomic_path(path, durable=False) as temporary:
        image.save(temporary, format="JPEG", quality=85)


def denoised(family: Family, noisy: Tensor, timestep: Tensor, output: Tensor, *, guidance: float) -> Tensor:
    """The latents without noise that the denoiser's output stands for.

    With x_t = sqrt(a) x_0 + sqrt(1 - a) e (Ho et al. 2020, 2006.11239, equation 4) solved for x_0 from the predicted e,
    or from v = sqrt(a) e - sqrt(1 - a) x_0 (Salimans and Ho 2022, 2202.00512, appendix D).

    Args:
        family: whose denoiser it was.
        noisy: (B, C, h, w) what it was called with, of unit variance; channels beyond the first four are not looked at.
        timestep: 0-d or (B,), fractions allowed.
        output: (B, 4, h, w).
        guidance: above 1, B is twice the number of pictures, negative prompts first (Ho and Salimans 2022, 2207.12598).
    """
    noisy = noisy[:, : output.shape[1]]
    if guidance > 1:
        negative, positive = output.chunk(2)
        output, noisy = negative + guidance * (positive - negative), noisy.chunk(2)[1]
    step = int(timestep.float().flatten()[0].round())
    signal = float(family.alphas_cumprod[max(0, min(step, len(family.alphas_cumprod) - 1))].clamp(min=_LEAST_SIGNAL))
    clear, noise = signal**0.5, (1 - signal) ** 0.5
    if family.prediction_type == "v_prediction":
        return clear * noisy - noise * output
    return (noisy - noise * output) / clear
