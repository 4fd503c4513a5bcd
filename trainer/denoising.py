"""One pass of a sampler, from noise or a noised picture to latents. On the CPU it is plain diffusers code bit for bit.

What diffusers does in a pipeline for each family and each kind of start (``StableDiffusionPipeline``, its ``Img2Img``,
its ``Inpaint``, and those of SDXL), in the same order of computations and of random draws.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from trainer.config import Prompt
from trainer.devices import sent
from trainer.families.base import Conditioning, Family, stacked
from trainer.samplers import make_scheduler


@dataclass(frozen=True)
class Texts:
    """What B pictures are to show and to avoid, encoded: B rows each."""

    prompt: Conditioning
    negative: Conditioning


@dataclass(frozen=True)
class Kept:
    """What stays as it is under a mask.

    Attributes:
        latents: (B, 4, h, w) of the picture.
        noise: (B, 4, h, w) that the picture was noised with.
        mask: (1, 1, h, w), 1 where it is drawn anew and 0 where it stays.
    """

    latents: Tensor
    noise: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Step:
    """A step that was taken, of B pictures.

    Attributes:
        latents: (B, 4, h, w) after it.
        noisy: (B, 4, h, w) what the denoiser was given, or (2B, 4, h, w), those for the negative prompts first.
        timestep: 0-d, for which it was asked.
        predicted: what it answered, as many rows as ``noisy``.
    """

    latents: Tensor
    noisy: Tensor
    timestep: Tensor
    predicted: Tensor


class Denoising:
    """A sampler's steps for pictures that are drawn together.

    Attributes:
        timesteps: of the steps that are taken.
        from_the_start: whether they begin at pure noise: nothing of a picture to start from is then wanted.
    """

    def __init__(self, family: Family, settings: Prompt, *, steps: int, strength: float | None = None) -> None:
        """Prepare the steps.

        Args:
            family: the model.
            settings: sampler, schedule and guidance.
            steps: denoising steps from pure noise to the picture.
            strength: the share of the steps that is taken, the last ones, when the start is a picture: at least one
                step but for 0. None when the start is noise.
        """
        self._family, self._guidance = family, settings.guidance
        denoiser: Any = family.denoiser
        self._device: torch.device = denoiser.device
        self._scheduler: Any = make_scheduler(settings.sampler, family.scheduler_config, settings.schedule)
        self._scheduler.set_timesteps(steps, device="cpu")  # on a GPU each look at them would wait for it
        begin = 0 if strength is None else _left_out(steps, strength) * self._scheduler.order
        self.timesteps: Tensor = self._scheduler.timesteps[begin:]
        self.from_the_start = strength is None or strength == 1
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(begin)

    def noise(self, shape: torch.Size, dtype: torch.dtype, generators: list[torch.Generator]) -> Tensor:
        """Standard normal noise of a shape (B, 4, h, w), each row from its own generator."""
        return randn_tensor(shape, generator=generators, device=self._device, dtype=dtype)

    def from_noise(self, noise: Tensor) -> Tensor:
        """The start when there is no picture."""
        return noise * self._scheduler.init_noise_sigma

    def from_picture(self, latents: Tensor, noise: Tensor) -> Tensor:
        """The start when there is one: its latents with the noise of the first step taken."""
        return self._scheduler.add_noise(latents, noise, self.timesteps[:1].repeat(len(latents)))

    def from_masked_picture(self, latents: Tensor, noise: Tensor) -> Tensor:
        """The start under a mask, where at full strength nothing of the picture is wanted."""
        return self.from_noise(noise) if self.from_the_start else self.from_picture(latents, noise)

    @torch.no_grad()
    def run(
        self,
        latents: Tensor,
        texts: Texts,
        generators: list[torch.Generator],
        *,
        kept: Kept | None = None,
        beside: Tensor | None = None,
        after_step: Callable[[Step], None] | None = None,
    ) -> Tensor:
        """Take the steps; returns latents (B, 4, h, w).

        Args:
            latents: (B, 4, h, w) the start.
            texts: what to show and to avoid.
            generators: one for each picture, of samplers that draw noise.
            kept: what stays as it is under a mask.
            beside: (B, C, h, w) channels that the denoiser reads behind the noisy latents.
            after_step: hears of each step, and may raise to end it there.
        """
        guided = self._guidance > 1 and not self._family.reads_guidance
        condition = stacked([texts.negative, texts.prompt]) if guided else texts.prompt
        scheduler, options = self._scheduler, self._step_options(generators)
        sizes = self._sizes(latents, 2 if guided else 1)
        behind = [] if beside is None else [torch.cat([beside] * 2) if guided else beside]
        asked = sent(self.timesteps, self._device)  # all at once: a copy to the GPU waits for it
        for index, timestep in enumerate(self.timesteps):
            noisy = torch.cat([latents] * 2) if guided else latents  # (B or 2B, 4, h, w)
            noisy = scheduler.scale_model_input(noisy, timestep)
            given = torch.cat([noisy, *behind], dim=1) if behind else noisy
            predicted = self._family.predict(given, asked[index], condition, sizes, guidance=self._guidance)
            followed = predicted
            if guided:
                without, following = predicted.chunk(2)
                followed = without + self._guidance * (following - without)
            latents = scheduler.step(followed, timestep, latents, **options, return_dict=False)[0]
            if kept is not None:
                latents = (1 - kept.mask) * self._kept_at(kept, index + 1) + kept.mask * latents
            if after_step is not None:
                after_step(Step(latents, noisy, timestep, predicted))
        return latents

    def _kept_at(self, kept: Kept, index: int) -> Tensor:
        """What is kept, with the noise that is left after a number of steps."""
        if index == len(self.timesteps):
            return kept.latents
        return self._scheduler.add_noise(kept.latents, kept.noise, self.timesteps[index : index + 1])

    def _sizes(self, latents: Tensor, times: int) -> Tensor:
        """(times * B, 6) sizes in pixels as in ``data.training_set.Batch``, nothing cropped."""
        height, width = (side * self._family.latent_scale for side in latents.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]]).repeat(times * len(latents), 1)
        return sizes.to(self._device)

    def _step_options(self, generators: list[torch.Generator]) -> dict[str, Any]:
        """What the scheduler's step takes beside the usual; ``eta`` 0 as in diffusers' pipelines."""
        known = inspect.signature(self._scheduler.step).parameters
        return {name: value for name, value in (("eta", 0.0), ("generator", generators)) if name in known}


def _left_out(steps: int, strength: float) -> int:
    """The first steps that a picture to start from makes needless, as in diffusers' ``get_timesteps``."""
    taken = min(int(steps * strength), steps)
    return steps - (max(taken, 1) if strength > 0 else 0)
