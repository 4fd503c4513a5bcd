"""Small models of real block structure, and the same weights in a single file's original naming.

The way back to the original names is written here on its own; diffusers' own converter is what tells that it is right.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainer.single_file.tokenizer import write_tokenizer

Weights = dict[str, Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
TOP = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def small_unet(**changes: Any) -> UNet2DConditionModel:
    """SD 1's blocks at small widths; norms of 32 groups and 8 heads as in the real one."""
    sizes: dict[str, Any] = {"block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 64, "attention_head_dim": 8}
    return UNet2DConditionModel(sample_size=64, **sizes | changes)


def small_vae(**changes: Any) -> AutoencoderKL:
    """The real VAE's blocks at small widths."""
    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
        **changes,
    )


def text_config(**changes: Any) -> CLIPTextConfig:
    """A narrow CLIP text encoder with the whole vocabulary."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1}
    tokens = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    return CLIPTextConfig(**{**sizes, **tokens, **changes})


def scaled_linear_ddim(**changes: Any) -> DDIMScheduler:
    """The noise schedule of all Stable Diffusion models."""
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return DDIMScheduler(**schedule, clip_sample=False, set_alpha_to_one=False, steps_offset=1, **changes)


@functools.lru_cache(maxsize=1)
def sd1_pipeline() -> StableDiffusionPipeline:
    """A random model of SD 1's structure, fp16 but for its VAE, whose norms would overflow."""
    torch.manual_seed(0)
    return StableDiffusionPipeline(
        unet=small_unet().half(),
        vae=small_vae().float(),
        text_encoder=CLIPTextModel(text_config()).half(),
        tokenizer=None,
        scheduler=scaled_linear_ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_folder(pipeline: Any, folder: Path) -> Path:
    """The model as a diffusers folder with CLIP's tokenizer."""
    write_tokenizer(folder / "tokenizer", pad_token="<|endoftext|>", max_tokens=77)
    pipeline.register_modules(tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"))
    pipeline.save_pretrained(folder)
    return folder


def sd1_weights(pipeline: StableDiffusionPipeline) -> Weights:
    """The model's weights under the names of CompVis' Stable Diffusion."""
    return {
        **_under("model.diffusion_model.", ldm_unet(pipeline.unet)),
        **_under("first_stage_model.", ldm_vae(pipeline.vae)),
        **_under("cond_stage_model.transformer.text_model.", _flat(pipeline.text_encoder)),
        # what real files have besides, and no model needs
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "model_ema.decay": torch.tensor(0.9999),
        "alphas_cumprod": torch.linspace(0.99, 0.01, 1000),
    }


def write_file(path: Path, weights: Weights, metadata: dict[str, str] | None = None) -> Path:
    """Save weights as .safetensors, or as .ckpt in the way of PyTorch Lightning."""
    if path.suffix == ".ckpt":
        torch.save({"state_dict": weights, "global_step": 7, "epoch": 1}, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata)
    return path


def ldm_unet(unet: UNet2DConditionModel) -> Weights:
    """The UNet in the original naming: blocks in one row, changes of size counted as blocks of their own."""
    return {_ldm_unet_name(name): tensor for name, tensor in unet.state_dict().items()}


def _ldm_unet_name(name: str) -> str:
    words = name.split(".")
    if words[0] == "mid_block":
        place = "1" if words[1] == "attentions" else str(2 * int(words[2]))
        return ".".join(["middle_block", place, *_inside(words[1], words[3:])])
    if words[0] not in ("down_blocks", "up_blocks"):
        stem = name.rpartition(".")[0]
        return name.replace(stem, TOP[stem])
    block, kind, layer = int(words[1]), words[2], int(words[3])
    if kind == "downsamplers":
        return f"input_blocks.{3 * block + 3}.0.op.{words[-1]}"
    if kind == "upsamplers":
        place = 1 if block == 0 else 2  # the lowest level of SD 1 has no attention before it
        return f"output_blocks.{3 * block + 2}.{place}.conv.{words[-1]}"
    number = (
        f"input_blocks.{3 * block + layer + 1}" if words[0] == "down_blocks" else f"output_blocks.{3 * block + layer}"
    )
    return ".".join([number, "1" if kind == "attentions" else "0", *_inside(kind, words[4:])])


def _inside(kind: str, words: list[str]) -> list[str]:
    return words if kind == "attentions" else [RESNET[words[0]], *words[1:]]


def ldm_vae(vae: AutoencoderKL) -> Weights:
    """The VAE in the original naming, whose attention has 1x1 convolutions."""
    weights: Weights = {}
    for name, tensor in vae.state_dict().items():
        convolution = ".attentions.0.to_" in name and name.endswith("weight")
        weights[_ldm_vae_name(name)] = tensor[:, :, None, None] if convolution else tensor
    return weights


def _ldm_vae_name(name: str) -> str:
    for ours, theirs in (
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0", "mid.attn_1"),
        (".group_norm", ".norm"),
        (".to_q", ".q"),
        (".to_k", ".k"),
        (".to_v", ".v"),
        (".to_out.0", ".proj_out"),
        ("conv_norm_out", "norm_out"),
        ("conv_shortcut", "nin_shortcut"),
        (".downsamplers.0", ".downsample"),
        (".upsamplers.0", ".upsample"),
        (".resnets.", ".block."),
    ):
        name = name.replace(ours, theirs)
    for level in range(4):
        name = name.replace(f"down_blocks.{level}.", f"down.{level}.").replace(
            f"up_blocks.{level}.", f"up.{3 - level}."
        )
    return name


def _under(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def _flat(text_encoder: Any) -> Weights:
    return {name.removeprefix("text_model."): tensor for name, tensor in text_encoder.state_dict().items()}
