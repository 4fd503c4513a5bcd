"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, UNet, AutoencoderKL. The embedded demo model is a 1.x."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

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
from trainer.families.unet import UnetFamily, check_clip_skip, tokens_of
from trainer.files import read_json
from trainer.lora.keys import kohya_key
from trainer.sampler_names import NoiseSchedule, Sampler
from trainer.samplers import make_scheduler
from trainer.weight_files import vae_folder

FULL_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
FULL_TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
"""Of Stable Diffusion 1.5, where they differ from the classes' own defaults."""


@dataclass(frozen=True)
class SdKind:
    """What tells one Stable Diffusion from the other.

    Attributes:
        name: of the family.
        title: for people.
        versions: ``ss_base_model_version`` and ``modelspec.architecture`` by prediction type.
        unet: of the usual size, where it differs from the class's own defaults.
        text: likewise.
        small_unet: what differs from the demo model's in a small random one.
        small_text: likewise.
    """

    name: str
    title: str
    versions: dict[str, tuple[str, str]]
    unet: dict[str, Any]
    text: dict[str, Any]
    small_unet: dict[str, Any]
    small_text: dict[str, Any]


SD1 = SdKind(
    name="sd1",
    title="Stable Diffusion 1.x",
    versions=dict.fromkeys(("epsilon", "v_prediction"), ("sd_v1", "stable-diffusion-v1")),
    unet={"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    text=FULL_TEXT,
    small_unet={},
    small_text={},
)
SD2 = SdKind(
    name="sd2",
    title="Stable Diffusion 2.x",
    versions={
        "epsilon": ("sd_v2", "stable-diffusion-v2-512"),
        "v_prediction": ("sd_v2_v", "stable-diffusion-v2-768-v"),
    },
    unet={
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    text={
        **FULL_TEXT,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,  # of OpenCLIP's 24: its states are the penultimate layer's, the final norm behind
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
    small_unet={"use_linear_projection": True},
    small_text={"hidden_act": "gelu"},
)
_SD2_TEXT_WIDTH = 1024


@dataclass
class SdFamily(UnetFamily):
    """A loaded Stable Diffusion 1.x or 2.x. See ``families.base.Family`` for what the members mean."""

    kind: SdKind

    @property
    def name(self) -> str:
        return self.kind.name

    @property
    def base_model_version(self) -> str:
        return self.kind.versions[self.prediction_type][0]

    @property
    def architecture(self) -> str:
        return self.kind.versions[self.prediction_type][1]

    @property
    def text_encoder(self) -> CLIPTextModel:
        """The one text encoder."""
        return self.texts["text_encoder"].encoder

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """Its tokenizer."""
        return self.texts["text_encoder"].tokenizer

    @property
    def max_clip_skip(self) -> int:
        return self.texts["text_encoder"].layers

    def lora_key(self, part: str, path: str) -> str:
        return kohya_key(part, path)

    def encode_tokens(self, tokens: Mapping[str, Tensor], *, clip_skip: int, weighted: bool) -> Conditioning:
        check_clip_skip(clip_skip, self.max_clip_skip)
        states, _ = self.texts["text_encoder"].encode(
            tokens_of("text_encoder", tokens), skip=clip_skip - 1, final_norm=True, weighted=weighted
        )
        return Conditioning(states, {})

    def predict(
        self,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor,
        *,
        guidance: float | None = None,
    ) -> Tensor:
        dtype = self.denoiser.dtype
        states = conditioning.hidden_states.to(self.denoiser.device, dtype)
        noisy, followed = noisy_latents.to(dtype), self.guidance_embedding(guidance, len(noisy_latents))
        return self.denoiser(noisy, timesteps, encoder_hidden_states=states, timestep_cond=followed).sample

    def pipeline(self, sampler: Sampler, schedule: NoiseSchedule = "model") -> StableDiffusionPipeline:
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.denoiser,
            scheduler=make_scheduler(sampler, self.scheduler_config, schedule),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


class SdLoader:
    """Recognises and loads Stable Diffusion folders of one kind."""

    def __init__(self, kind: SdKind) -> None:
        self._kind = kind
        self.title = kind.title

    def recognises(self, folder: Path) -> bool:
        """Both have the same pipeline class; 2.x reads text of width 1024, and projects it by linear layers."""
        try:
            index, unet = read_json(folder / "model_index.json"), read_json(folder / "unet" / "config.json")
        except (OSError, ValueError):
            return False
        if index.get("_class_name") not in ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"):
            return False
        second = unet.get("use_linear_projection") or unet.get("cross_attention_dim") == _SD2_TEXT_WIDTH
        return bool(second) == (self._kind is SD2)

    def versions(self, prediction_type: str) -> tuple[str, str]:
        """See ``families.base.FamilyLoader``."""
        return self._kind.versions[prediction_type]

    def load(
        self,
        folder: Path,
        *,
        vae: Path | None,
        device: torch.device,
        dtype: torch.dtype,
        prediction_type: str,
        zero_terminal_snr: bool,
    ) -> SdFamily:
        """See ``families.base.FamilyLoader``."""
        quiet()
        family = SdFamily(
            folder=folder,
            vae_folder=vae_folder(folder, vae),
            scheduler_config=read_scheduler(folder, prediction_type, zero_terminal_snr),
            texts={"text_encoder": lazy_text(CLIPTextModel, folder / "text_encoder", dtype, device)},
            vae_part=lazy_vae(vae_folder(folder, vae), device),
            denoiser=load_unet(folder, dtype),
            kind=self._kind,
        )
        _check_widths(family)
        family.freeze(device)
        return family

    def random(self, size: Literal["demo", "full"], *, device: torch.device, dtype: torch.dtype) -> SdFamily:
        """See ``families.base.FamilyLoader``."""
        kind = self._kind
        unet, text, vae = kind.unet, kind.text, FULL_VAE
        if size == "demo":
            unet, text = demo_config("unet") | kind.small_unet, demo_config("text_encoder") | kind.small_text
            vae = demo_config("vae")
        family = SdFamily(
            folder=MODEL_DIR,
            vae_folder=MODEL_DIR / "vae",
            denoiser=random_unet(unet, dtype, device),
            texts={"text_encoder": random_text(CLIPTextModel, text, dtype, device)},
            vae_part=random_vae(vae, device),
            scheduler_config=read_scheduler(MODEL_DIR, "auto", False),
            kind=kind,
        )
        family.fingerprint_text = family.fingerprint_vae = "random"  # no files have these weights
        family.freeze(device)
        return family


def _check_widths(family: SdFamily) -> None:
    """Raise UserError when the UNet reads text of another width than the text encoder writes."""
    reads, writes = family.denoiser.config.cross_attention_dim, family.text_width
    if reads != writes:
        message = f"model.base: {family.folder} does not fit together: its UNet reads text of width {reads}, its text "
        message += f"encoder writes {writes}."
        raise UserError("model.broken", message, "Take both from the same model.", "model.base")
