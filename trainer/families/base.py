"""What the recipe asks of a model family. One file per family; shared code never asks which family it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from trainer.config_training import Checkpointing
from trainer.errors import Problem
from trainer.sampler_names import NoiseSchedule, Sampler


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser reads of a batch of captions.

    Attributes:
        hidden_states: (B, T, C) text encoder output.
        extra: further inputs by name, each with B rows (SDXL: ``pooled``); empty for SD 1.x and 2.x.
    """

    hidden_states: Tensor
    extra: dict[str, Tensor]


def stacked(conditionings: list[Conditioning]) -> Conditioning:
    """The rows of several conditionings, one after the other."""
    states = torch.cat([each.hidden_states for each in conditionings])
    names = conditionings[0].extra
    return Conditioning(states, {name: torch.cat([each.extra[name] for each in conditionings]) for name in names})


def clip_skip_problem(field: str, clip_skip: int, most: int) -> Problem:
    """What is told where a clip skip is more than the ``most`` that a family takes."""
    message = f"{field}: {clip_skip} is more than the {most} layers of this model's text encoder."
    return Problem("clip_skip.too_large", message, f"Use 1 to {most}.", field)


class Family(Protocol):
    """A model. ``denoiser`` and ``text_encoders`` are frozen modules that take PEFT adapters.

    The denoiser is loaded. Text encoders and VAE are loaded when they are first used, or asked for by
    ``text_encoders``, ``adapter_targets`` or ``pipeline``; what is set for them before then is kept for them.
    """

    @property
    def name(self) -> str:
        """Short name such as ``sd1``, as in ``model.family``."""

    @property
    def base_model_version(self) -> str:
        """``ss_base_model_version`` for LoRA files: ``sd_v1``."""

    @property
    def architecture(self) -> str:
        """``modelspec.architecture`` for LoRA files, without the ``/lora``: ``stable-diffusion-v1``."""

    @property
    def denoiser(self) -> nn.Module:
        """The UNet."""

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """By pipeline attribute: ``text_encoder``, and ``text_encoder_2`` where there are two."""

    @property
    def loaded(self) -> dict[str, nn.Module]:
        """The parts that are loaded by now, by pipeline attribute, ``unet`` and ``vae`` among them."""

    @property
    def text_width(self) -> int:
        """Numbers that the text encoders give for each token, together."""

    @property
    def text_dtype(self) -> torch.dtype:
        """The text encoders' number format."""

    @property
    def text_device(self) -> torch.device:
        """Where the text encoders are, or will be when they are loaded."""

    @property
    def max_clip_skip(self) -> int:
        """The largest ``clip_skip`` that ``encode_captions`` takes."""

    @property
    def prediction_type(self) -> str:
        """``epsilon`` or ``v_prediction``: what the denoiser predicts."""

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The model's noise schedule as settings that every diffusers scheduler understands."""

    @property
    def alphas_cumprod(self) -> Tensor:
        """(1000,) float32 noise schedule, on the CPU."""

    @property
    def latent_scale(self) -> int:
        """Pixels per latent cell: 8."""

    @property
    def reads_masks(self) -> bool:
        """Whether the denoiser is one for inpainting.

        Beside the four channels of the noisy latents it reads the mask, 1 for what is drawn anew, and the four of the
        picture without what is masked.
        """

    @property
    def tile_px(self) -> int:
        """Side in pixels of the tiles of ``tile_decoding``: no picture within one is cut."""

    @property
    def fingerprint_vae(self) -> str:
        """Changes when the VAE changes: part of the latent cache's key."""

    @property
    def fingerprint_text(self) -> str:
        """Changes when the text encoders change: part of the caption cache's key."""

    def encode_pixels(self, pixels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to scaled latents (B, 4, H/8, W/8) float32.

        With a generator the latents are drawn from the VAE's distribution, without one they are its mean.
        """

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, 4, h, w) to pixels (B, 3, 8h, 8w) in [-1, 1], float32."""

    def tile_decoding(self, wanted: bool) -> None:
        """Decode and encode what exceeds ``tile_px`` in overlapping tiles: less memory, other pixels by a little."""

    def rough_pixels(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, 4, h, w) to about the colour of each cell, (B, 3, h, w) float32, at next to no cost.

        The first call of a model encodes a small picture.
        """

    def tokenize_captions(self, captions: list[str], *, max_token_length: int, weighted: bool) -> dict[str, Tensor]:
        """What ``encode_tokens`` reads, by name: tensors of B rows, on the CPU."""

    def encode_tokens(self, tokens: Mapping[str, Tensor], *, clip_skip: int, weighted: bool) -> Conditioning:
        """The half of ``encode_captions`` that a device computes; see there."""

    def encode_captions(
        self, captions: list[str], *, max_token_length: int, clip_skip: int, weighted: bool
    ) -> Conditioning:
        """Captions to what the denoiser reads. Keeps gradients when text encoder adapters are trained.

        Raises UserError(field="train.clip_skip") when ``clip_skip`` is more than ``max_clip_skip``.
        """

    @property
    def reads_guidance(self) -> bool:
        """Whether the denoiser itself is told the guidance (distilled models): it then needs no negative prompt."""

    def predict(
        self,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor,
        *,
        guidance: float | None = None,
    ) -> Tensor:
        """The denoiser's output for (B, 4, h, w) noisy latents and (B,) int64 timesteps, or one timestep for all.

        Noisy latents come as (B, 9, h, w), with what ``reads_masks`` says, where that is so. ``sizes`` are those of
        ``data.training_set.Batch``; families without size conditioning do not look at them, nor denoisers at
        ``guidance`` that do not read it.
        """

    def adapter_targets(
        self, target: str, *, conv: bool, train: Literal["both", "unet", "text_encoder"] = "both"
    ) -> dict[str, list[str]]:
        """Full names of the layers an adapter goes on, by part: ``{"unet": [...], "text_encoder": [...]}``.

        Without the parts that ``train`` leaves out.
        """

    def lora_key(self, part: str, path: str) -> str:
        """A layer's name in LoRA files, without prefix and suffix of its tensors, as kohya's tools write it.

        Args:
            part: ``unet`` or a key of ``text_encoders``.
            path: dotted name of the layer in that part.
        """

    def train(self, mode: bool) -> None:
        """Dropout of the denoiser and the text encoders on or off."""

    def save_memory(self, choice: Checkpointing, *, draws: bool = True) -> None:
        """Gradient checkpointing: what layers need is computed again in the backward pass instead of being kept.

        To be called when the adapters are there. ``draws``: whether these draw random numbers.
        """

    def pipeline(self, sampler: Sampler, schedule: NoiseSchedule = "model") -> Any:
        """A diffusers pipeline made of these very modules (adapters included), with the sampler's scheduler."""

    def move(
        self,
        *,
        denoiser: torch.device | str | None = None,
        text: torch.device | str | None = None,
        vae: torch.device | str | None = None,
    ) -> None:
        """Move parts between devices; None leaves a part where it is."""

    def load(self) -> None:
        """Load every part that is not loaded yet. Raises UserError when one is broken."""

    def release(self, *, text: bool, vae: bool) -> None:
        """Let parts go, which are loaded anew when they are used again. Not for those whose weights were changed."""


class FamilyLoader(Protocol):
    """How a family recognises and loads its models.

    Attributes:
        title: the family's name for people.
    """

    title: str

    def recognises(self, folder: Path) -> bool:
        """Whether the model in this diffusers folder is of this family."""

    def versions(self, prediction_type: str) -> tuple[str, str]:
        """What LoRA files for such a model say: base model version, and architecture without ``/lora``."""

    def random(self, size: Literal["demo", "full"], *, device: torch.device, dtype: torch.dtype) -> Family:
        """A model with random weights, of the demo's size or of the family's usual one: to measure speed with."""

    def load(
        self,
        folder: Path,
        *,
        vae: Path | None,
        device: torch.device,
        dtype: torch.dtype,
        prediction_type: str,
        zero_terminal_snr: bool,
    ) -> Family:
        """Load the model, frozen in ``dtype``. Raises UserError(field="model.base") when broken.

        Args:
            folder: the model in diffusers layout.
            vae: folder of another VAE, or of a model whose VAE is meant.
            device: where all parts are put.
            dtype: format of denoiser and text encoders; the VAE stays float32, others make black pictures.
            prediction_type: ``auto`` for the model's own.
            zero_terminal_snr: rescale the noise schedule so that its last step is pure noise.
        """
