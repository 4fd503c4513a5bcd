"""The model family that a LoRA file tells of: by metadata, names of layers, or the text they read. Never torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainer.lora.sai_keys import is_sai_key

_OF_VERSION = {"sd_v1": "sd1", "sd_v2": "sd2", "sd_v2_v": "sd2", "sdxl_base_v1-0": "sdxl"}
_OF_ARCHITECTURE = {"stable-diffusion-v1": "sd1", "stable-diffusion-v2": "sd2", "stable-diffusion-xl": "sdxl"}
_OF_TEXT_WIDTH = {768: "sd1", 1024: "sd2", 2048: "sdxl"}


def told_family(metadata: Mapping[str, str], keys: Iterable[str], text_widths: Iterable[int]) -> str:
    """The family's short name; empty where nothing tells.

    Args:
        metadata: the file's.
        keys: its layers, as kohya keys.
        text_widths: numbers per token that its cross-attention layers read.
    """
    said = _OF_VERSION.get(metadata.get("ss_base_model_version", ""))
    if said:
        return said
    if any(key.startswith("lora_te2_") or is_sai_key(key) for key in keys):
        return "sdxl"
    found = [_OF_TEXT_WIDTH[width] for width in sorted(text_widths) if width in _OF_TEXT_WIDTH]
    architecture = metadata.get("modelspec.architecture", "")
    told = [family for start, family in _OF_ARCHITECTURE.items() if architecture.startswith(start)]
    return next(iter([*found, *told]), "")
