"""Configs for a model folder: the family's standard ones, with the sizes that the weights show. Never torch.

The files in ``configs/`` hold what weights do not show: the published models' own settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.files import read_json
from trainer.single_file.header import Shapes

STANDARD = Path(__file__).parent / "configs"

_CLIP_HEAD = 64  # every CLIP text encoder has heads of this width
_TIME_IDS = 6  # SDXL: original size, crop, target size


def standard(family: str, part: str) -> dict[str, Any]:
    """The published config of a part: ``unet``, ``vae``, ``text_encoder``, ``scheduler``, ``model_index`` ..."""
    return read_json(STANDARD / family / f"{part}.json")


def unet_config(config: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The UNet's config, its sizes from weights named as in a model folder.

    Raises KeyError when a weight that every such UNet has is missing.
    """
    count = _count(shapes, r"down_blocks\.(\d+)\.")
    widths = [shapes[f"down_blocks.{level}.resnets.0.conv2.weight"][0] for level in range(count)]
    depths = [_depth(shapes, f"down_blocks.{level}") for level in range(count)]
    attention = next(name for name in shapes if name.endswith("attentions.0.proj_in.weight"))
    text_width = shapes[re.sub(r"proj_in\.weight$", "transformer_blocks.0.attn2.to_k.weight", attention)][1]
    linear = len(shapes[attention]) == 2
    kinds = ["CrossAttn" if depth else "" for depth in depths]
    found = {
        **config,
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": _count(shapes, r"down_blocks\.0\.resnets\.(\d+)\."),
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        "transformer_layers_per_block": [depth or 1 for depth in depths] if max(depths) > 1 else 1,
        "cross_attention_dim": text_width,
        "use_linear_projection": linear,
    }
    if isinstance(config["attention_head_dim"], list):  # heads of a fixed width: their number follows the channels
        found["attention_head_dim"] = [max(1, width // _CLIP_HEAD) for width in widths]
    if "add_embedding.linear_1.weight" in shapes:
        found["projection_class_embeddings_input_dim"] = shapes["add_embedding.linear_1.weight"][1]
    return found


def vae_config(config: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The VAE's config, its sizes from weights named as in a model folder. Raises KeyError when one is missing."""
    count = _count(shapes, r"encoder\.down_blocks\.(\d+)\.")
    return {
        **config,
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": [shapes[f"encoder.down_blocks.{i}.resnets.0.conv2.weight"][0] for i in range(count)],
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "up_block_types": ["UpDecoderBlock2D"] * count,
        "layers_per_block": _count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def text_config(config: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    """A text encoder's config, its sizes from weights named as in a model folder. Raises KeyError."""
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    projection = shapes.get("text_projection.weight")
    return {
        **config,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, r"text_model\.encoder\.layers\.(\d+)\."),
        "num_attention_heads": max(1, width // _CLIP_HEAD),
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "projection_dim": projection[0] if projection else config["projection_dim"],
    }


READERS: dict[str, Callable[[dict[str, Any], Shapes], dict[str, Any]]] = {
    "unet": unet_config,
    "vae": vae_config,
    "text_encoder": text_config,
    "text_encoder_2": text_config,
}


def part_configs(family: str, shapes: dict[str, Shapes]) -> dict[str, dict[str, Any]]:
    """The config of every part, its sizes read off its weights (named as in a model folder)."""
    found = {part: READERS[part](standard(family, part), shapes[part]) for part in shapes}
    unet = found["unet"]
    if "text_encoder_2" in found:  # pooled text and six numbers, each spread over so many features
        pooled = found["text_encoder_2"]["projection_dim"]
        unet["addition_time_embed_dim"] = (unet["projection_class_embeddings_input_dim"] - pooled) // _TIME_IDS
    return found


def _count(shapes: Shapes, pattern: str) -> int:
    numbers = {int(found[1]) for name in shapes if (found := re.match(pattern, name))}
    return max(numbers, default=-1) + 1


def _depth(shapes: Shapes, block: str) -> int:
    """Transformer blocks in each attention of a level; 0 without attention."""
    return _count(shapes, rf"{re.escape(block)}\.attentions\.0\.transformer_blocks\.(\d+)\.")
