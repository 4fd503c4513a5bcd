"""What all families with a UNet and a VAE of Stable Diffusion share."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from trainer.checkpointing import use_checkpointing
from trainer.config_training import Checkpointing
from trainer.devices import features_of
from trainer.errors import UserError
from trainer.families.base import Conditioning, clip_skip_problem
from trainer.families.clip import ClipText, Tokens
from trainer.families.convolutions import use_products_on_cpu
from trainer.families.latent_colours import fit_colours, with_constant
from trainer.families.lazy_part import LazyPart
from trainer.families.parts import fingerprint
from trainer.single_file.kinds import INPAINTING_CHANNELS

_ATTENTION = re.compile(r"\.attn[12]\.to_(q|k|v|out\.0)$")
_TRANSFORMER = re.compile(r"\.(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out)$")
_RESNET = re.compile(r"\.resnets\.\d+\.(time_emb_proj|conv_shortcut)$")
_LARGE_CONV = re.compile(r"\.resnets\.\d+\.conv[12]$|\.(down|up)samplers\.\d+\.conv$")
_TEXT_ATTENTION = re.compile(r"\.self_attn\.(q|k|v|out)_proj$")
_TEXT_ALL = re.compile(r"\.self_attn\.(q|k|v|out)_proj$|\.mlp\.fc[12]$")


@dataclass
class UnetFamily:
    """A UNet, its text encoders, a VAE and a noise schedule. ``families.base.Family`` says what the members mean.

    Attributes:
        texts: text encoders with their tokenizers, by the encoder's name in a diffusers pipeline.
        vae_part: the VAE.
        scheduler_config: the noise schedule, as a diffusers scheduler's settings.
    """

    folder: Path
    vae_folder: Path
    denoiser: UNet2DConditionModel
    texts: dict[str, ClipText]
    vae_part: LazyPart[AutoencoderKL]
    scheduler_config: Mapping[str, Any]

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        return {name: text.encoder for name, text in self.texts.items()}

    @property
    def vae(self) -> AutoencoderKL:
        """Pixels to latents and back."""
        return self.vae_part.module

    @property
    def loaded(self) -> dict[str, nn.Module]:
        lazy = {**{name: text.part for name, text in self.texts.items()}, "vae": self.vae_part}
        return {"unet": self.denoiser, **{name: module for name, part in lazy.items() for module in part.loaded}}

    @property
    def text_width(self) -> int:
        return sum(text.part.config.hidden_size for text in self.texts.values())

    @property
    def text_dtype(self) -> torch.dtype:
        return next(iter(self.texts.values())).part.dtype

    @property
    def text_device(self) -> torch.device:
        return next(iter(self.texts.values())).part.device

    @property
    def prediction_type(self) -> str:
        return self.scheduler_config["prediction_type"]

    @functools.cached_property
    def alphas_cumprod(self) -> Tensor:
        return DDPMScheduler.from_config(dict(self.scheduler_config)).alphas_cumprod

    @property
    def latent_scale(self) -> int:
        return 2 ** (len(self.vae_part.config["block_out_channels"]) - 1)

    @property
    def reads_masks(self) -> bool:
        return self.denoiser.config.in_channels == INPAINTING_CHANNELS

    @property
    def tile_px(self) -> int:
        return self.vae_part.config["sample_size"]

    @functools.cached_property
    def fingerprint_vae(self) -> str:
        return fingerprint(self.vae_folder)

    @functools.cached_property
    def fingerprint_text(self) -> str:
        parts = [part for name in self.texts for part in (name, name.replace("text_encoder", "tokenizer"))]
        return fingerprint(*(self.folder / part for part in parts))

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        distribution = self.vae.encode(pixels.to(self.vae.device, torch.float32)).latent_dist
        latents = distribution.mode() if generator is None else distribution.sample(generator)
        return latents * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        scaled = latents.to(self.vae.device, torch.float32) / self.vae.config.scaling_factor
        return self.vae.decode(scaled).sample

    def tile_decoding(self, wanted: bool) -> None:
        self.vae_part.let("tiling", AutoencoderKL.enable_tiling if wanted else AutoencoderKL.disable_tiling)

    @functools.cached_property
    def _colours(self) -> Tensor:
        return fit_colours(self.encode_pixels, self.latent_scale)

    @torch.no_grad()
    def rough_pixels(self, latents: Tensor) -> Tensor:
        colours = self._colours.to(latents.device)
        return torch.einsum("bchw,ck->bkhw", with_constant(latents.float()), colours)

    def tokenize_captions(self, captions: list[str], *, max_token_length: int, weighted: bool) -> dict[str, Tensor]:
        tokens = {
            name: text.tokenize(captions, max_token_length=max_token_length, weighted=weighted)
            for name, text in self.texts.items()
        }
        return {f"{name}.{kind}": each for name, both in tokens.items() for kind, each in both._asdict().items()}

    def encode_tokens(self, tokens: Mapping[str, Tensor], *, clip_skip: int, weighted: bool) -> Conditioning:
        raise NotImplementedError

    def encode_captions(
        self, captions: list[str], *, max_token_length: int, clip_skip: int, weighted: bool
    ) -> Conditioning:
        tokens = self.tokenize_captions(captions, max_token_length=max_token_length, weighted=weighted)
        return self.encode_tokens(tokens, clip_skip=clip_skip, weighted=weighted)

    @property
    def reads_guidance(self) -> bool:
        return self.denoiser.config.time_cond_proj_dim is not None

    def guidance_embedding(self, guidance: float | None, batch: int) -> Tensor | None:
        """(B, C) for a denoiser that reads the guidance (Luo et al. 2023, 2310.04378, section 4.2), else None."""
        if guidance is None or not self.reads_guidance:
            return None
        scales = torch.tensor(guidance - 1).repeat(batch)
        pipeline: Any = StableDiffusionPipeline
        embedding = pipeline.get_guidance_scale_embedding(None, scales, self.denoiser.config.time_cond_proj_dim)
        return embedding.to(self.denoiser.device, self.denoiser.dtype)

    def adapter_targets(
        self, target: str, *, conv: bool, train: Literal["both", "unet", "text_encoder"] = "both"
    ) -> dict[str, list[str]]:
        unet = {"attention": [_ATTENTION], "attention_ff": [_TRANSFORMER], "full": [_TRANSFORMER, _RESNET]}[target]
        if conv:
            unet = [*unet, _LARGE_CONV]
        text = [_TEXT_ATTENTION if target == "attention" else _TEXT_ALL]
        found: dict[str, list[str]] = {}
        if train != "text_encoder":
            found["unet"] = _layers(self.denoiser, unet)
        if train != "unet":
            found |= {name: _layers(encoder, text) for name, encoder in self.text_encoders.items()}
        return found

    def train(self, mode: bool) -> None:
        self.denoiser.train(mode)
        for text in self.texts.values():
            text.part.let("mode", lambda encoder: encoder.train(mode))

    def save_memory(self, choice: Checkpointing, *, draws: bool = True) -> None:
        use_checkpointing(self.denoiser, choice, draws=draws)
        for text in self.texts.values():
            text.part.let("checkpointing", lambda encoder: _checkpoint(encoder, choice == "all", draws))

    def move(
        self,
        *,
        denoiser: torch.device | str | None = None,
        text: torch.device | str | None = None,
        vae: torch.device | str | None = None,
    ) -> None:
        if denoiser is not None:
            self.denoiser.to(denoiser)
        if text is not None:
            for each in self.texts.values():
                each.part.move(text)
        if vae is not None:
            self.vae_part.move(vae)

    def load(self) -> None:
        for part in (*(text.part for text in self.texts.values()), self.vae_part):
            _ = part.module

    def release(self, *, text: bool, vae: bool) -> None:
        for each in self.texts.values() if text else ():
            each.part.release()
        if vae:
            self.vae_part.release()

    def freeze(self, device: torch.device) -> None:
        """Bring the denoiser to the device, without gradients and without dropout."""
        self.denoiser.requires_grad_(False).eval()
        if not features_of(device).beside_host:
            use_products_on_cpu(self.denoiser)
        self.move(denoiser=device)


def takes_lora(part: str, path: str, *, conv: bool) -> bool:
    """Whether LoRAs usually have a layer of this name, as in kohya's tools.

    Those of all transformers, and of ResNets and changes of size only where there are convolutions (``conv``); not the
    first and the last layer, nor the embeddings of time and size.

    Args:
        part: ``unet`` or a text encoder.
        path: dotted name of the layer in that part.
        conv: whether the LoRA is to have 3x3 convolutions.
    """
    unet = [_TRANSFORMER, _RESNET, _LARGE_CONV] if conv else [_TRANSFORMER]
    return any(pattern.search(path) for pattern in (unet if part == "unet" else [_TEXT_ALL]))


def tokens_of(encoder: str, tokens: Mapping[str, Tensor]) -> Tokens:
    """What ``tokenize_captions`` made for one of the text encoders."""
    return Tokens(*(tokens[f"{encoder}.{kind}"] for kind in Tokens._fields))


def check_clip_skip(clip_skip: int, most: int) -> None:
    """Raise UserError when the text encoders have not that many layers to leave out."""
    if clip_skip > most:
        raise UserError.many([clip_skip_problem("train.clip_skip", clip_skip, most)])


def _checkpoint(encoder: Any, wanted: bool, draws: bool) -> None:
    """Gradient checkpointing of a text encoder on or off."""
    encoder.gradient_checkpointing_disable()
    if wanted:
        # reentrant checkpoints lose the gradients of adapters inside a frozen model
        encoder.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": draws})


def _layers(module: nn.Module, patterns: list[re.Pattern[str]]) -> list[str]:
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and any(pattern.search(name) for pattern in patterns)
    ]
