"""Stable Diffusion 1.x: CLIP text encoder, UNet, AutoencoderKL. The embedded demo model is one of them."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainer.config import Sampler
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.families.base import Conditioning
from trainer.families.emphasis import parse_emphasis
from trainer.files import read_json
from trainer.samplers import make_scheduler

CONTENT_TOKENS = 75
"""Tokens of a caption that CLIP reads at once; begin and end come on top."""

FULL_UNET: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
FULL_TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
FULL_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
"""Stable Diffusion 1.5, where it differs from the classes' own defaults."""

_ATTENTION = re.compile(r"\.attn[12]\.to_(q|k|v|out\.0)$")
_TRANSFORMER = re.compile(r"\.(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out)$")
_RESNET = re.compile(r"\.resnets\.\d+\.(time_emb_proj|conv_shortcut)$")
_LARGE_CONV = re.compile(r"\.resnets\.\d+\.conv[12]$|\.(down|up)samplers\.\d+\.conv$")
_TEXT_ATTENTION = re.compile(r"\.self_attn\.(q|k|v|out)_proj$")
_TEXT_ALL = re.compile(r"\.self_attn\.(q|k|v|out)_proj$|\.mlp\.fc[12]$")


@dataclass
class SdFamily:
    """A loaded Stable Diffusion 1.x. See ``families.base.Family`` for what the members mean."""

    folder: Path
    vae_folder: Path
    denoiser: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    vae: AutoencoderKL
    scheduler_config: Mapping[str, Any]
    name: str = "sd1"
    base_model_version: str = "sd_v1"
    architecture: str = "stable-diffusion-v1"

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        return {"text_encoder": self.text_encoder}

    @property
    def prediction_type(self) -> str:
        return self.scheduler_config["prediction_type"]

    @functools.cached_property
    def alphas_cumprod(self) -> Tensor:
        return DDPMScheduler.from_config(dict(self.scheduler_config)).alphas_cumprod

    @property
    def latent_scale(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @functools.cached_property
    def fingerprint_vae(self) -> str:
        return _fingerprint(self.vae_folder)

    @functools.cached_property
    def fingerprint_text(self) -> str:
        return _fingerprint(self.folder / "text_encoder", self.folder / "tokenizer")

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        distribution = self.vae.encode(pixels.to(self.vae.device, torch.float32)).latent_dist
        latents = distribution.mode() if generator is None else distribution.sample(generator)
        return latents * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        scaled = latents.to(self.vae.device, torch.float32) / self.vae.config.scaling_factor
        return self.vae.decode(scaled).sample

    def encode_captions(
        self, captions: list[str], *, max_token_length: int, clip_skip: int, weighted: bool
    ) -> Conditioning:
        ids, weights = self._tokenize(captions, chunks=max_token_length // CONTENT_TOKENS, weighted=weighted)
        states = self._encode_ids(ids.to(self.text_encoder.device), clip_skip)  # (B, chunks, L, C)
        states = _join_chunks(states)  # (B, T, C)
        if weighted:
            states = _emphasise(states, weights.to(states))
        return Conditioning(states, {})

    def _tokenize(self, captions: list[str], *, chunks: int, weighted: bool) -> tuple[Tensor, Tensor]:
        """Token ids (B, chunks, L) and, per token of the joined chunks, emphasis (B, T)."""
        room = self.tokenizer.model_max_length - 2
        begin, end, pad = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        all_ids, all_weights = [], []
        for caption in captions:
            pieces = parse_emphasis(caption) if weighted else [(caption, 1.0)]
            tokens = [
                (token, weight)
                for text, weight in pieces
                for token in self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            ][: room * chunks]
            ids = [token for token, _ in tokens]
            rows = [ids[start : start + room] for start in range(0, room * chunks, room)]
            # a short chunk is padded behind its end token, as CLIP was trained
            all_ids.append([[begin, *row, end, *[pad] * (room - len(row))] for row in rows])
            all_weights.append([1.0, *[weight for _, weight in tokens], *[1.0] * (room * chunks - len(tokens) + 1)])
        return torch.tensor(all_ids), torch.tensor(all_weights)

    def _encode_ids(self, ids: Tensor, clip_skip: int) -> Tensor:
        """Token ids (B, chunks, L) to states (B, chunks, L, C) of the text encoder's ``clip_skip``-th last layer."""
        layers = self.text_encoder.config.num_hidden_layers
        if clip_skip > layers:
            message = f"train.clip_skip: {clip_skip} is more than the {layers} layers of this model's text encoder."
            raise UserError("clip_skip.too_large", message, f"Use 1 to {layers}.", "train.clip_skip")
        output = self.text_encoder(ids.flatten(0, 1), output_hidden_states=clip_skip > 1)
        states = output.last_hidden_state
        if clip_skip > 1:
            states = self.text_encoder.final_layer_norm(output.hidden_states[-clip_skip])
        return states.unflatten(0, ids.shape[:2])

    def predict(self, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        dtype = self.denoiser.dtype
        states = conditioning.hidden_states.to(self.denoiser.device, dtype)
        return self.denoiser(noisy_latents.to(dtype), timesteps, encoder_hidden_states=states).sample

    def adapter_targets(self, target: str, *, conv: bool) -> dict[str, list[str]]:
        unet = {"attention": [_ATTENTION], "attention_ff": [_TRANSFORMER], "full": [_TRANSFORMER, _RESNET]}[target]
        if conv:
            unet = [*unet, _LARGE_CONV]
        text = _TEXT_ATTENTION if target == "attention" else _TEXT_ALL
        return {"unet": _layers(self.denoiser, unet), "text_encoder": _layers(self.text_encoder, [text])}

    def save_memory(self) -> None:
        self.denoiser.enable_gradient_checkpointing()
        # reentrant checkpoints lose the gradients of adapters inside a frozen model
        self.text_encoder.gradient_checkpointing_enable({"use_reentrant": False})

    def pipeline(self, sampler: Sampler) -> StableDiffusionPipeline:
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.denoiser,
            scheduler=make_scheduler(sampler, self.scheduler_config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def move(
        self,
        *,
        denoiser: torch.device | str | None = None,
        text: torch.device | str | None = None,
        vae: torch.device | str | None = None,
    ) -> None:
        for part, device in ((self.denoiser, denoiser), (self.text_encoder, text), (self.vae, vae)):
            if device is not None:
                part.to(device)


class SdLoader:
    """Recognises and loads Stable Diffusion 1.x folders."""

    def recognises(self, folder: Path) -> bool:
        """SD 2 has the same pipeline class, but linear projections; SDXL has a second text encoder."""
        try:
            index, unet = read_json(folder / "model_index.json"), read_json(folder / "unet" / "config.json")
        except (OSError, ValueError):
            return False
        return index.get("_class_name") == "StableDiffusionPipeline" and not unet.get("use_linear_projection")

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
        transformers.utils.logging.disable_progress_bar()
        diffusers.utils.logging.disable_progress_bar()
        vae_folder = vae if vae and (vae / "config.json").is_file() else (vae or folder) / "vae"
        scheduler = _read_scheduler(folder, prediction_type, zero_terminal_snr)
        family = SdFamily(
            folder=folder,
            vae_folder=vae_folder,
            denoiser=_load_part(UNet2DConditionModel, folder / "unet", torch_dtype=dtype),
            text_encoder=_load_part(CLIPTextModel, folder / "text_encoder", dtype=dtype),
            tokenizer=_load_tokenizer(folder / "tokenizer"),
            vae=_load_part(AutoencoderKL, vae_folder, torch_dtype=torch.float32),
            scheduler_config=scheduler,
        )
        return _frozen(family, device)

    def random(self, size: Literal["demo", "full"], *, device: torch.device, dtype: torch.dtype) -> SdFamily:
        unet, text, vae = _demo_configs() if size == "demo" else (FULL_UNET, FULL_TEXT, FULL_VAE)
        with torch.device(device):  # made where they are used: far quicker for a GPU
            family = SdFamily(
                folder=MODEL_DIR,
                vae_folder=MODEL_DIR / "vae",
                denoiser=UNet2DConditionModel.from_config(unet).to(dtype=dtype),
                text_encoder=CLIPTextModel(CLIPTextConfig.from_dict(text)).to(dtype=dtype),
                tokenizer=_load_tokenizer(MODEL_DIR / "tokenizer"),
                vae=AutoencoderKL.from_config(vae),
                scheduler_config=_read_scheduler(MODEL_DIR, "auto", False),
            )
        family.tokenizer.model_max_length = CONTENT_TOKENS + 2
        return _frozen(family, device)


def _frozen(family: SdFamily, device: torch.device) -> SdFamily:
    for part in (family.denoiser, family.text_encoder, family.vae):
        part.requires_grad_(False).eval()
    family.move(denoiser=device, text=device, vae=device)
    return family


def _demo_configs() -> tuple[dict[str, Any], ...]:
    return tuple(read_json(MODEL_DIR / part / "config.json") for part in ("unet", "text_encoder", "vae"))


def _read_scheduler(folder: Path, prediction_type: str, zero_terminal_snr: bool) -> dict[str, Any]:
    try:
        config = dict(DDPMScheduler.from_config(read_json(folder / "scheduler" / "scheduler_config.json")).config)
    except (OSError, ValueError, TypeError) as error:
        raise _broken(folder / "scheduler", error) from error
    if prediction_type != "auto":
        config["prediction_type"] = prediction_type
    if zero_terminal_snr:  # Lin et al. 2023 (2305.08891): sampling must then start at the last step
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if config["prediction_type"] == "epsilon" and config["rescale_betas_zero_snr"]:
        raise UserError(
            "loss.zero_terminal_snr",
            "loss.zero_terminal_snr: at zero signal the noise cannot be predicted; this model predicts the noise.",
            "Set it to false, or use a v-prediction model.",
            "loss.zero_terminal_snr",
        )
    return config


def _load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """One component from its safetensors file. Raises UserError when it is missing or broken."""
    variant = (
        "fp16" if list(folder.glob("*.fp16.safetensors")) and not list(folder.glob("*model.safetensors")) else None
    )
    try:
        return kind.from_pretrained(folder, use_safetensors=True, local_files_only=True, variant=variant, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise _broken(folder, error) from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":  # the class moved between versions
            raise _broken(folder, error) from error
        raise


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise _broken(folder, FileNotFoundError("tokenizer.json or vocab.json is missing"))
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise _broken(folder, error) from error


def _broken(folder: Path, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    message = f"model.base: the {folder.name} of {folder.parent} cannot be loaded: {reason}"
    hint = "Get the model again, with its .safetensors files."
    return UserError("model.broken", message, hint, "model.base")


def _layers(module: nn.Module, patterns: list[re.Pattern[str]]) -> list[str]:
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and any(pattern.search(name) for pattern in patterns)
    ]


def _join_chunks(states: Tensor) -> Tensor:
    """(B, chunks, L, C) to (B, T, C): one begin, every chunk's content, one end, as kohya's trainers join them."""
    content = states[:, :, 1:-1].flatten(1, 2)
    return torch.cat([states[:, 0, :1], content, states[:, -1, -1:]], dim=1)


def _emphasise(states: Tensor, weights: Tensor) -> Tensor:
    """Scale each token's state by its weight, then the whole so that its mean stays (A1111's way)."""
    scaled = states * weights[..., None]
    before, after = states.float().mean((-2, -1), keepdim=True), scaled.float().mean((-2, -1), keepdim=True)
    return scaled * (before / after).to(scaled)


def _fingerprint(*folders: Path) -> str:
    """A hash over the names and contents of the weights and settings in these folders."""
    digest = hashlib.sha256()
    for path in sorted(file for folder in folders for file in folder.iterdir() if file.is_file()):
        if path.suffix in (".json", ".safetensors", ".txt"):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:32]
