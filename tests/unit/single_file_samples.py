"""Small models of real block structure, and the same weights in a single file's original naming.

The way back to the original names is written here on its own; diffusers' own converter is what tells that it is right.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

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


@functools.lru_cache(maxsize=1)
def sd2_pipeline() -> StableDiffusionPipeline:
    """A random model of SD 2's structure: linear projections, heads of 64, 23 of OpenCLIP's 24 layers."""
    torch.manual_seed(1)
    return StableDiffusionPipeline(
        unet=small_unet(
            block_out_channels=(32, 64, 128, 128),
            attention_head_dim=(1, 1, 2, 2),
            use_linear_projection=True,
            upcast_attention=True,
        ).half(),
        vae=small_vae().float(),
        text_encoder=CLIPTextModel(text_config(num_hidden_layers=23, hidden_act="gelu", pad_token_id=0)).half(),
        tokenizer=None,
        scheduler=scaled_linear_ddim(prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@functools.lru_cache(maxsize=1)
def sdxl_pipeline() -> StableDiffusionXLPipeline:
    """A random model of SDXL's structure: three levels, deep attention, two text encoders, size conditioning."""
    torch.manual_seed(2)
    second = text_config(hidden_size=128, num_attention_heads=2, hidden_act="gelu", projection_dim=40, pad_token_id=0)
    return StableDiffusionXLPipeline(
        unet=small_unet(
            block_out_channels=(32, 64, 128),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 3),
            attention_head_dim=(1, 1, 2),
            cross_attention_dim=64 + 128,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=40 + 6 * 8,
        ).half(),
        vae=small_vae(scaling_factor=0.13025).float(),
        text_encoder=CLIPTextModel(text_config()).half(),
        text_encoder_2=CLIPTextModelWithProjection(second).half(),
        tokenizer=None,
        tokenizer_2=None,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )


def save_folder(pipeline: Any, folder: Path) -> Path:
    """The model as a diffusers folder with CLIP's tokenizers."""
    for part in [name for name in pipeline.components if name.startswith("text_encoder")]:
        name = part.replace("text_encoder", "tokenizer")
        pad_token = "!" if getattr(pipeline, part).config.hidden_act == "gelu" else "<|endoftext|>"
        write_tokenizer(folder / name, pad_token=pad_token, max_tokens=77)
        pipeline.register_modules(**{name: CLIPTokenizer.from_pretrained(folder / name)})
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


def sd2_weights(pipeline: StableDiffusionPipeline) -> Weights:
    """The model's weights under the names of Stability's Stable Diffusion 2, with OpenCLIP's 24th layer."""
    text = open_clip(pipeline.text_encoder)
    last = "transformer.resblocks.22."
    text |= {
        name.replace(last, "transformer.resblocks.23."): -text[name] for name in list(text) if name.startswith(last)
    }
    text |= {"text_projection": torch.ones(64, 64), "logit_scale": torch.tensor(4.6), "attn_mask": torch.zeros(77, 77)}
    return {
        **_under("model.diffusion_model.", ldm_unet(pipeline.unet)),
        **_under("first_stage_model.", ldm_vae(pipeline.vae)),
        **_under("cond_stage_model.model.", text),
    }


def sdxl_weights(pipeline: StableDiffusionXLPipeline) -> Weights:
    """The model's weights under the names of Stability's generative-models."""
    return {
        **_under("model.diffusion_model.", ldm_unet(pipeline.unet)),
        **_under("first_stage_model.", ldm_vae(pipeline.vae)),
        **_under("conditioner.embedders.0.transformer.text_model.", _flat(pipeline.text_encoder)),
        **_under("conditioner.embedders.1.model.", open_clip(pipeline.text_encoder_2)),
        "conditioner.embedders.1.model.logit_scale": torch.tensor(4.6),
    }


def sample(kind: str) -> tuple[Any, Weights]:
    """The model of a family, and its single file's weights."""
    pipeline, weights = {
        "sd1": (sd1_pipeline, sd1_weights),
        "sd2": (sd2_pipeline, sd2_weights),
        "sdxl": (sdxl_pipeline, sdxl_weights),
    }[kind]
    return pipeline(), weights(pipeline())


def write_file(path: Path, weights: Weights, metadata: dict[str, str] | None = None) -> Path:
    """Save weights as .safetensors, or as .ckpt in the way of PyTorch Lightning."""
    if path.suffix == ".ckpt":
        torch.save({"state_dict": weights, "global_step": 7, "epoch": 1}, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata)
    return path


def ldm_unet(unet: UNet2DConditionModel) -> Weights:
    """The UNet in the original naming: blocks in one row, changes of size counted as blocks of their own."""
    weights = unet.state_dict()
    with_attention = {".".join(name.split(".")[:2]) for name in weights if ".attentions." in name}
    return {_ldm_unet_name(name, with_attention): tensor for name, tensor in weights.items()}


def _ldm_unet_name(name: str, with_attention: set[str]) -> str:
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
        place = 2 if f"up_blocks.{block}" in with_attention else 1
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


def open_clip(text_encoder: Any) -> Weights:
    """A text encoder in OpenCLIP's naming: q, k and v in one weight, the projection the other way round."""
    weights: Weights = {}
    given = _flat(text_encoder)
    for name, tensor in given.items():
        if ".q_proj." in name:
            fused = torch.cat([given[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"])
            weights[_open_clip_name(name.replace("self_attn.q_proj.", "attn.in_proj_"))] = fused
        elif name == "text_projection.weight":
            weights["text_projection"] = tensor.T
        elif ".k_proj." not in name and ".v_proj." not in name:
            weights[_open_clip_name(name)] = tensor
    return weights


def _open_clip_name(name: str) -> str:
    for ours, theirs in (
        ("embeddings.token_embedding", "token_embedding"),
        ("embeddings.position_embedding.weight", "positional_embedding"),
        ("final_layer_norm", "ln_final"),
        ("encoder.layers", "transformer.resblocks"),
        ("layer_norm", "ln_"),
        ("self_attn.", "attn."),
        ("fc1", "c_fc"),
        ("fc2", "c_proj"),
    ):
        name = name.replace(ours, theirs)
    return name


def _under(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def _flat(text_encoder: Any) -> Weights:
    return {name.removeprefix("text_model."): tensor for name, tensor in text_encoder.state_dict().items()}
