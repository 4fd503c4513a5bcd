"""From a layer's kohya key back to its part and dotted module path, without the model.

Kohya's keys put ``_`` for every dot of a path, and names have underscores of their own. The words that UNets of
Stable Diffusion (diffusers' ``UNet2DConditionModel``) and CLIP's text encoders are made of are known, so that only one
reading is left: ``lora_unet_mid_block_attentions_0_proj_in`` is ``unet`` and ``mid_block.attentions.0.proj_in``.
"""

from __future__ import annotations

import re

from trainer.lora.keys import PREFIXES, Part, part_of
from trainer.lora.sai_keys import from_sai

_UNET_WORDS = (
    "down_blocks", "mid_block", "up_blocks", "attentions", "resnets", "motion_modules", "downsamplers", "upsamplers",
    "transformer_blocks", "proj_in", "proj_out", "attn1", "attn2", "to_q", "to_k", "to_v", "to_out", "add_k_proj",
    "add_v_proj", "ff", "net", "proj", "conv", "conv1", "conv2", "conv_shortcut", "time_emb_proj", "conv_in",
    "conv_out", "time_embedding", "add_embedding", "class_embedding", "linear_1", "linear_2", "cond_proj",
    "encoder_hid_proj",
)  # fmt: skip
_TEXT_WORDS = (
    "text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "mlp", "fc1", "fc2",
    "embeddings", "token_embedding", "position_embedding", "text_projection",
)  # fmt: skip
_SDXL_FIRST_ENCODER = "lora_te1_"


def _word(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"({'|'.join(longest_first)}|\d+)(_|$)")


_WORDS = {"unet": _word(_UNET_WORDS), "text_encoder": _word(_TEXT_WORDS), "text_encoder_2": _word(_TEXT_WORDS)}


def module_path(key: str) -> tuple[Part, str] | None:
    """Part and dotted path of the layer with this kohya key, Stability's names included; None for an unknown word."""
    part = part_of(key)
    if part is None:
        return None
    key = from_sai(key)
    prefix = _SDXL_FIRST_ENCODER if key.startswith(_SDXL_FIRST_ENCODER) else PREFIXES[part]
    words, place = [], len(prefix)
    while place < len(key):
        found = _WORDS[part].match(key, place)
        if found is None:
            return None
        words.append(found.group(1))
        place = found.end()
    return (part, ".".join(words)) if words else None
