"""Stable Diffusion XL and its derivatives: two CLIP text encoders, a UNet that reads picture sizes, AutoencoderKL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.families.base import Conditioning
from trainer.families.parts import (
    demo_config,
    lazy_text,
    lazy_vae,
    load_unet,
    quiet,
    random_text,
    random_unet,
    random_vae,
    read_scheduler,
)
from trainer.families.sd import FULL_TEXT, FULL_VAE
from trainer.families.unet import UnetFamily, check_clip_skip, tokens_of
from trainer.files import read_json
from trainer.lora.keys import kohya_key
from trainer.sampler_names import NoiseSchedule, Sampler
from trainer.samplers import make_scheduler
from trainer.weight_files import vae_folder

SIZE_NUMBERS = 6
"""Original height and width, crop top and left, target height and width: what the UNet reads of a picture's size."""

FULL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1280 + SIZE_NUMBERS * 256,
}
FULL_TEXT_2: dict[str, Any] = {
    **FULL_TEXT,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
"""SDXL 1.0, where it differs from the classes' own defaults."""
_TEXTS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


@dataclass
class SdxlFamily(UnetFamily):
    """A loaded SDXL. See ``families.base.Family`` for what the members mean.

    Captions are read from the layer before the last of both text encoders, without the final norm, and as a whole from
    the second one's projection (Podell et al. 2023, 2307.01952, section 2.1).
    """

    name: str = "sdxl"
    base_model_version: str = "sdxl_base_v1-0"
    architecture: str = "stable-diffusion-xl-v1-base"

    @property
    def max_clip_skip(self) -> int:
        return min(text.layers for text in self.texts.values()) - 1

    def lora_key(self, part: str, path: str) -> str:
        return kohya_key(part, path, sdxl=True)

    def encode_tokens(self, tokens: Mapping[str, Tensor], *, clip_skip: int, weighted: bool) -> Conditioning:
        check_clip_skip(clip_skip, self.max_clip_skip)
        encoded = [
            text.encode(tokens_of(name, tokens), skip=clip_skip, final_norm=False, weighted=weighted)
            for name, text in self.texts.items()
        ]
        states = torch.cat([states for states, _ in encoded], dim=-1)  # (B, T, C1 + C2)
        (pooled,) = (pooled for _, pooled in encoded if pooled is not None)  # (B, P)
        return Conditioning(states, {"pooled": pooled})

    def predict(
        self,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor,
        *,
        guidance: float | None = None,
    ) -> Tensor:
        dtype, device = self.denoiser.dtype, self.denoiser.device
        added = {
            "text_embeds": conditioning.extra["pooled"].to(device, dtype),
            "time_ids": sizes.to(device, torch.float32),  # 16-bit formats cannot hold sizes above 2048 exactly
        }
        states = conditioning.hidden_states.to(device, dtype)
        noisy, followed = noisy_latents.to(dtype), self.guidance_embedding(guidance, len(noisy_latents))
        return self.denoiser(
            noisy, timesteps, encoder_hidden_states=states, timestep_cond=followed, added_cond_kwargs=added
        ).sample

    def pipeline(self, sampler: Sampler, schedule: NoiseSchedule = "model") -> StableDiffusionXLPipeline:
        first, second = self.texts["text_encoder"], self.texts["text_encoder_2"]
        pipeline = StableDiffusionXLPipeline(
            vae=self.vae,
            text_encoder=first.encoder,
            text_encoder_2=second.encoder,
            tokenizer=first.tokenizer,
            tokenizer_2=second.tokenizer,
            unet=self.denoiser,
            scheduler=make_scheduler(sampler, self.scheduler_config, schedule),
            add_watermarker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


class SdxlLoader:
    """Recognises and loads SDXL folders."""

    title = "Stable Diffusion XL"

    def recognises(self, folder: Path) -> bool:
        """The refiner has the pipeline class of picture-to-picture, and only the second text encoder."""
        try:
            index = read_json(folder / "model_index.json")
        except (OSError, ValueError):
            return False
        return index.get("_class_name") in ("StableDiffusionXLPipeline", "StableDiffusionXLInpaintPipeline")

    def versions(self, prediction_type: str) -> tuple[str, str]:
        """See ``families.base.FamilyLoader``."""
        return SdxlFamily.base_model_version, SdxlFamily.architecture

    def load(
        self,
        folder: Path,
        *,
        vae: Path | None,
        device: torch.device,
        dtype: torch.dtype,
        prediction_type: str,
        zero_terminal_snr: bool,
    ) -> SdxlFamily:
        """See ``families.base.FamilyLoader``."""
        quiet()
        family = SdxlFamily(
            folder=folder,
            vae_folder=vae_folder(folder, vae),
            scheduler_config=read_scheduler(folder, prediction_type, zero_terminal_snr),
            texts={name: lazy_text(kind, folder / name, dtype, device) for name, kind in _TEXTS.items()},
            vae_part=lazy_vae(vae_folder(folder, vae), device),
            denoiser=load_unet(folder, dtype),
        )
        _check_widths(family)
        family.freeze(device)
        return family

    def random(self, size: Literal["demo", "full"], *, device: torch.device, dtype: torch.dtype) -> SdxlFamily:
        """See ``families.base.FamilyLoader``."""
        unet, texts, vae = (FULL_UNET, [FULL_TEXT, FULL_TEXT_2], FULL_VAE) if size == "full" else _small_configs()
        family = SdxlFamily(
            folder=MODEL_DIR,
            vae_folder=MODEL_DIR / "vae",
            denoiser=random_unet(unet, dtype, device),
            texts={
                name: random_text(kind, settings, dtype, device)
                for (name, kind), settings in zip(_TEXTS.items(), texts, strict=True)
            },
            vae_part=random_vae(vae, device),
            scheduler_config=read_scheduler(MODEL_DIR, "auto", False),
        )
        family.fingerprint_text = family.fingerprint_vae = "random"  # no files have these weights
        family.freeze(device)
        return family


def _small_configs() -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """UNet, text encoders and VAE in SDXL's shape and of the demo model's size."""
    demo, text = demo_config("unet"), demo_config("text_encoder")
    shape = {name: FULL_UNET[name] for name in ("down_block_types", "up_block_types", "use_linear_projection")}
    time_width = 32
    unet = demo | shape
    unet |= {
        "block_out_channels": demo["block_out_channels"][:3],
        "transformer_layers_per_block": (1, 1, 2),
        "cross_attention_dim": 2 * text["hidden_size"],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": time_width,
        "projection_class_embeddings_input_dim": text["projection_dim"] + SIZE_NUMBERS * time_width,
    }
    return unet, [text, text | {"hidden_act": "gelu"}], demo_config("vae")


def _check_widths(family: SdxlFamily) -> None:
    """Raise UserError when the UNet reads text of other widths than the text encoders write, or no sizes."""
    config = family.denoiser.config
    if config.addition_embed_type != "text_time":
        message = f"model.base: the UNet of {family.folder} does not read picture sizes, as that of SDXL does."
        raise UserError("model.broken", message, "Get the model again.", "model.base")
    projection = family.texts["text_encoder_2"].part.config.projection_dim
    summary = config.projection_class_embeddings_input_dim - SIZE_NUMBERS * config.addition_time_embed_dim
    if config.cross_attention_dim != family.text_width or summary != projection:
        message = f"model.base: the UNet of {family.folder} reads text of other widths than its text encoders write."
        raise UserError("model.broken", message, "Take all parts from the same model.", "model.base")
