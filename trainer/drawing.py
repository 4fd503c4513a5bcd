"""Pictures from a model that is loaded: from a prompt, from another picture, under a mask, and a larger second pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor

from trainer.canvas import Canvas, make_canvas, size_like
from trainer.denoising import Denoising, Kept, Step, Texts
from trainer.errors import UserError
from trainer.families.base import Conditioning, Family, clip_skip_problem, stacked
from trainer.inputs import input_size
from trainer.pictures import PictureSettings


@dataclass(frozen=True)
class Progress:
    """How far the pictures are that are drawn together.

    Attributes:
        done: denoising steps taken, over all passes.
        total: of so many.
        step: the last of them.
    """

    done: int
    total: int
    step: Step


OnStep = Callable[[Progress], None]
"""Called after each denoising step; may raise to end the pictures there."""


def size_of(family: Family, settings: PictureSettings) -> tuple[int, int]:
    """Width and height in pixels that are drawn at first.

    Where the settings leave them open: the model's own size, in the shape of the picture to start from.
    """
    config: Any = family.denoiser.config
    native = config.sample_size * family.latent_scale
    alone = settings.mask and settings.inpaint_area == "masked"
    if settings.init_image and not settings.width and not settings.height and not alone:
        return size_like(input_size(Path(settings.init_image)), native)
    return settings.width or native, settings.height or native


def step_count(family: Family, settings: PictureSettings) -> int:
    """How many denoising steps a picture takes over all passes: some samplers take two for each that is asked for."""
    return sum(len(each.timesteps) for each in _passes(family, settings))


@torch.no_grad()
def draw(
    family: Family,
    settings: PictureSettings,
    seeds: list[int],
    *,
    prompts: list[str] | None = None,
    on_step: OnStep | None = None,
) -> list[Image.Image]:
    """One picture per seed, all in one batch; ``settings.seed`` and ``settings.count`` do not count here.

    Args:
        family: the model, with whatever adapters are in effect.
        settings: what to draw.
        seeds: one for each picture.
        prompts: one for each picture, in place of the one in the settings.
        on_step: hears of each denoising step.

    Raises UserError when the clip skip is too large or a picture to start from cannot be read.
    """
    if settings.clip_skip > family.max_clip_skip:
        raise UserError.many([clip_skip_problem("clip_skip", settings.clip_skip, family.max_clip_skip)])
    return _Drawing(family, settings, prompts or [settings.prompt] * len(seeds), seeds, on_step).pictures()


def _passes(family: Family, settings: PictureSettings) -> list[Denoising]:
    if settings.init_image:
        return [Denoising(family, settings, steps=settings.steps, strength=settings.strength)]
    passes = [Denoising(family, settings, steps=settings.steps)]
    if settings.hires_scale > 1:
        steps = settings.hires_steps or settings.steps
        passes.append(Denoising(family, settings, steps=steps, strength=settings.hires_strength))
    return passes


class _Drawing:
    """Pictures being drawn together."""

    def __init__(
        self, family: Family, settings: PictureSettings, prompts: list[str], seeds: list[int], on_step: OnStep | None
    ) -> None:
        self._family, self._settings, self._on_step = family, settings, on_step
        self._passes = _passes(family, settings)
        self._done, self._total = 0, sum(len(each.timesteps) for each in self._passes)
        self._size = size_of(family, settings)
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        negative = self._encode(settings.negative)
        encoded = {prompt: self._encode(prompt) for prompt in dict.fromkeys(prompts)}
        self._texts = Texts(stacked([encoded[prompt] for prompt in prompts]), stacked([negative] * len(prompts)))

    def pictures(self) -> list[Image.Image]:
        if self._settings.init_image:
            return self._from_canvas(make_canvas(self._settings, self._size))
        first = self._passes[0]
        latents = self._run(first, first.from_noise(self._noise(first, self._shape)))
        return self._enlarged(latents) if len(self._passes) > 1 else self._decoded(latents)

    def _from_canvas(self, canvas: Canvas) -> list[Image.Image]:
        (only,) = self._passes
        if not len(only.timesteps):  # strength 0: not even the VAE may change it
            return [canvas.image.copy() for _ in self._generators]
        if self._family.reads_masks:
            return [canvas.finished(each) for each in self._decoded(self._inpainted(only, canvas))]
        latents = self._encoded([canvas.pixels] * len(self._generators))
        noise = self._noise(only, latents.shape)
        mask = canvas.mask_cells
        if mask is None:
            return self._decoded(self._run(only, only.from_picture(latents, noise)))
        # diffusers also encodes the picture without what is masked, which is not looked at here: one more draw
        self._noise(only, latents.shape)
        latents = latents.contiguous()  # as diffusers has it here: in another layout convolutions round otherwise
        kept = Kept(latents, noise, mask.to(latents))
        drawn = self._decoded(self._run(only, only.from_masked_picture(latents, noise), kept))
        return [canvas.finished(each) for each in drawn]

    def _inpainted(self, only: Denoising, canvas: Canvas) -> Tensor:
        """Latents by a model that reads the mask; without one all of the picture is drawn anew, as A1111 does it."""
        if only.from_the_start:
            latents = only.from_noise(self._noise(only, self._shape))
        else:
            latents = self._encoded([canvas.pixels] * len(self._generators)).contiguous()  # as diffusers has it here
            latents = only.from_picture(latents, self._noise(only, latents.shape))
        return self._run(only, latents, beside=self._beside(canvas.kept_pixels, canvas.mask_cells))

    def _beside(self, kept: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, 5, h, w) what an inpainting model reads beside noisy latents.

        Args:
            kept: (1, 3, H, W) the pixels that stay, grey where they are masked.
            mask: (1, 1, h, w); None where all of them are.
        """
        latents = self._encoded([kept] * len(self._generators))
        cells = torch.ones_like(latents[:1, :1]) if mask is None else mask.to(latents)
        return torch.cat([cells.expand(len(latents), -1, -1, -1), latents], dim=1)

    def _enlarged(self, latents: Tensor) -> list[Image.Image]:
        """The second pass."""
        second, size = self._passes[1], self._settings.enlarged(self._size)
        if self._settings.hires_upscaler == "lanczos":
            pictures = [each.resize(size, Image.Resampling.LANCZOS) for each in self._decoded(latents)]
            if not len(second.timesteps):
                return pictures
            latents = self._encoded([VaeImageProcessor().preprocess(each) for each in pictures])
        else:
            cells = [side // self._family.latent_scale for side in reversed(size)]
            latents = torch.nn.functional.interpolate(latents, size=cells, mode="bilinear")
        if len(second.timesteps):
            latents = self._run(second, second.from_picture(latents, self._noise(second, latents.shape)))
        return self._decoded(latents)

    @property
    def _shape(self) -> torch.Size:
        """Of the latents that are drawn at first."""
        width, height = (side // self._family.latent_scale for side in self._size)
        return torch.Size([len(self._generators), 4, height, width])

    def _run(
        self, denoising: Denoising, latents: Tensor, kept: Kept | None = None, beside: Tensor | None = None
    ) -> Tensor:
        if beside is None and self._family.reads_masks:  # there is no picture: nothing is kept
            height, width = (side * self._family.latent_scale for side in latents.shape[-2:])
            # laid out as pictures are that were read: in another layout convolutions round otherwise
            beside = self._beside(torch.zeros(1, height, width, 3).movedim(-1, 1))
        return denoising.run(latents, self._texts, self._generators, kept=kept, beside=beside, after_step=self._tell)

    def _tell(self, step: Step) -> None:
        self._done += 1
        if self._on_step is not None:
            self._on_step(Progress(self._done, self._total, step))

    def _noise(self, denoising: Denoising, shape: torch.Size) -> Tensor:
        return denoising.noise(shape, self._texts.prompt.hidden_states.dtype, self._generators)

    def _encode(self, text: str) -> Conditioning:
        """One prompt, by itself: in a batch the text encoder rounds differently than diffusers' own pipeline."""
        return self._family.encode_captions(
            [text],
            max_token_length=self._settings.max_token_length,
            clip_skip=self._settings.clip_skip,
            weighted=self._settings.weighted,
        )

    def _encoded(self, pixels: list[Tensor]) -> Tensor:
        """(B, 4, h, w) latents of B pictures, each drawn from the VAE's distribution as diffusers does."""
        pairs = zip(pixels, self._generators, strict=True)
        latents = torch.cat([self._family.encode_pixels(each, generator=generator) for each, generator in pairs])
        denoiser: Any = self._family.denoiser
        return latents.to(denoiser.device, self._texts.prompt.hidden_states.dtype)

    def _decoded(self, latents: Tensor) -> list[Image.Image]:
        """One by one, which takes less memory; in float32 whatever the denoiser computes in."""
        pixels = [self._family.decode_latents(row) for row in latents.split(1)]
        return [VaeImageProcessor().postprocess(each, output_type="pil")[0] for each in pixels]
