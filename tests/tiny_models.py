"""Small random models of every family, in diffusers layout, built from the classes that real ones are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoPipelineForInpainting,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainer.demo import MODEL_DIR

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD_UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
}
SDXL_UNET: dict[str, Any] = {
    **SD_UNET,
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 1, 2),
    "cross_attention_dim": 32 + 48,
    "attention_head_dim": (2, 4, 8),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 40 + 6 * 8,
}
KINDS = ("sd1", "sd2-v", "sdxl", "sdxl-v")
"""What ``tiny_model`` can build; ``v`` predicts the velocity, in SDXL with zero terminal SNR."""


def tiny_model(kind: str, folder: Path) -> Path:
    """Build a model of one of ``KINDS`` in ``folder``, the same one each time."""
    torch.manual_seed(KINDS.index(kind))
    pipeline = _sdxl(kind) if kind.startswith("sdxl") else _sd(kind)
    for part in (pipeline.unet, getattr(pipeline, "text_encoder_2", None) or pipeline.text_encoder):
        with torch.no_grad():  # away from the initial values, at which biases are zero and norms do nothing
            for parameter in part.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
    pipeline.save_pretrained(folder)
    return folder


def tiny_inpainting_model(kind: str, folder: Path) -> Path:
    """A model of one of ``KINDS`` whose denoiser reads a mask, and the picture without what is masked."""
    plain = plain_pipeline(tiny_model(kind, folder / "ordinary"))
    unet = UNet2DConditionModel.from_config({**plain.unet.config, "in_channels": 9})
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    options = {"requires_safety_checker": False} if kind.startswith("sd1") else {}
    pipeline = AutoPipelineForInpainting.from_pipe(plain, unet=unet, **options)
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


def plain_pipeline(folder: Path) -> Any:
    """The model as diffusers itself loads it, in float32, and frozen as ours is.

    PyTorch multiplies by a weight that could learn in another way (``should_fold`` of its ``matmul``), also where
    nothing is to learn, and some processors then round otherwise.
    """
    options = {} if (folder / "text_encoder_2").is_dir() else {"safety_checker": None}
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True, **options)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)
    return pipeline


def _sd(kind: str) -> StableDiffusionPipeline:
    second = kind.startswith("sd2")
    unet = {**SD_UNET, "use_linear_projection": second, "attention_head_dim": (2, 4) if second else 4}
    scheduler = PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    if second:
        scheduler = DDIMScheduler(**BETAS, clip_sample=False, prediction_type="v_prediction", steps_offset=1)
    return StableDiffusionPipeline(
        vae=_vae(0.18215),
        text_encoder=CLIPTextModel(_text(32, "gelu" if second else "quick_gelu")),
        tokenizer=_tokenizer("!" if second else None),
        unet=UNet2DConditionModel(**unet),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(kind: str) -> StableDiffusionXLPipeline:
    velocity = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True} if kind == "sdxl-v" else {}
    spacing = "trailing" if velocity else "leading"
    return StableDiffusionXLPipeline(
        vae=_vae(0.13025),
        text_encoder=CLIPTextModel(_text(32, "quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(_text(48, "gelu")),
        tokenizer=_tokenizer(None),
        tokenizer_2=_tokenizer("!"),
        unet=UNet2DConditionModel(**SDXL_UNET),
        scheduler=EulerDiscreteScheduler(**BETAS, **velocity, timestep_spacing=spacing, steps_offset=1),
        add_watermarker=False,
    )


def _text(width: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=958,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act=activation,
        projection_dim=40,
        bos_token_id=956,
        eos_token_id=957,
    )


def _tokenizer(pad: str | None) -> CLIPTokenizer:
    """The demo's; OpenCLIP's text encoders are padded with ``!``, the first of its vocabulary."""
    tokenizer = CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer", local_files_only=True)
    if pad is not None:
        tokenizer.pad_token = pad
    return tokenizer


def _vae(scale: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=scale,
    )
