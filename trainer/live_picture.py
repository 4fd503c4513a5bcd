"""The picture that is being drawn, long before its last step: a small one, made from what the denoiser just said.

No pipeline has to help: a denoiser is called with the noisy latents scaled to unit variance whichever sampler asks, so
its input and output give the latents without noise.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from trainer.families.base import Family
from trainer.files import atomic_path

LONGEST_PX = 256
_LEAST_SIGNAL = 1e-4
"""Of the variance: what a denoiser trained to pure noise finds at its first step cannot be scaled up to a picture."""


class LivePicture:
    """Follows a denoiser, and shows what its picture is going to be. A context: it follows within ``with`` only.

    Following keeps three references and computes nothing; ``image`` costs a few operations on numbers as few as the
    latents, see ``Family.rough_pixels``.

    Args:
        family: the model.
        guidance: of the pictures. Above 1 the denoiser's batch holds those of the negative prompts first, but for one
            that reads the guidance itself.
    """

    def __init__(self, family: Family, guidance: float) -> None:
        self._family = family
        self._guidance = 0.0 if family.reads_guidance else guidance
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def __enter__(self) -> LivePicture:
        self._hook = self._family.denoiser.register_forward_hook(self._follow)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hook.remove()
        self._seen = None

    @torch.no_grad()
    def image(self) -> Image.Image | None:
        """The pictures of the batch side by side, no side longer than 256 px; None before the first step."""
        if self._seen is None:
            return None
        noisy, timestep, output = self._seen
        latents = denoised(self._family, noisy.float(), timestep, output.float(), guidance=self._guidance)
        pixels = self._family.rough_pixels(latents)  # (B, 3, h, w)
        row = torch.cat(list(pixels.clamp(-1, 1)), dim=2).permute(1, 2, 0)  # (h, B * w, 3)
        small = Image.fromarray(((row + 1) * 127.5).round().to("cpu", torch.uint8).numpy())
        larger = min(float(self._family.latent_scale), LONGEST_PX / max(small.size))
        return small.resize((round(small.width * larger), round(small.height * larger)), Image.Resampling.BICUBIC)

    def save(self, path: Path) -> bool:
        """Write the image as JPEG in place of an earlier one; False where there is none yet."""
        image = self.image()
        if image is None:
            return False
        with atomic_path(path, durable=False) as temporary:
            image.save(temporary, format="JPEG", quality=85)
        return True

    def _follow(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._seen = (inputs[0], inputs[1], output[0])


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
