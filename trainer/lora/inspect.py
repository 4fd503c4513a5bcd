"""What is in a LoRA file: family, ranks, parts, strength per block, metadata, trigger words."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from trainer.lora.file import LoraFile, read_lora, widest_precision
from trainer.lora.keys import block_of, part_of
from trainer.lora.layers import Layer, LoraLayer, product_norm
from trainer.lora.sai_keys import is_sai_key

_FAMILY_OF_VERSION = {"sd_v1": "sd1", "sd_v2": "sd2", "sd_v2_v": "sd2", "sdxl_base_v1-0": "sdxl"}
_FAMILY_OF_TEXT_WIDTH = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
_LARGE_CONV_NAME = re.compile(r"_(conv[12]?|in_layers_2|out_layers_3|op)$")
_SHOWN_TAGS = 10


def inspect_lora(path: Path) -> dict[str, Any]:
    """Everything worth telling about a LoRA file, as plain values. Raises UserError when it cannot be read."""
    lora = read_lora(path)
    return {
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "family": family_of(lora),
        "precision": widest_precision([lora]),
        "modules": len(lora.layers),
        "parts": dict(sorted(Counter(part_of(module) or "other" for module in lora.layers).items())),
        "kinds": dict(sorted(Counter(layer.name for layer in lora.layers.values()).items())),
        "convolutions": sum(_is_large_conv(module, layer) for module, layer in lora.layers.items()),
        "ranks": _counts([layer.rank for layer in lora.layers.values()]),
        "alphas": _counts([layer.alpha for layer in lora.layers.values()]),
        "trigger": lora.metadata.get("modelspec.trigger_phrase"),
        "frequent_tags": frequent_tags(lora.metadata),
        "blocks": block_norms(lora),
        "unknown_keys": lora.unknown,
        "metadata": dict(sorted(lora.metadata.items())),
    }


def family_of(lora: LoraFile) -> str:
    """The model family: as the file says, else by the width of the text that its layers read; or ``unknown``."""
    said = _FAMILY_OF_VERSION.get(lora.metadata.get("ss_base_model_version", ""))
    if said:
        return said
    if any(module.startswith("lora_te2_") or is_sai_key(module) for module in lora.layers):
        return "sdxl"
    widths = {layer.weight_shape[1] for module, layer in lora.layers.items() if module.endswith("attn2_to_k")}
    return next((_FAMILY_OF_TEXT_WIDTH[width] for width in sorted(widths) if width in _FAMILY_OF_TEXT_WIDTH), "unknown")


def delta_norm(layer: Layer) -> float:
    """Frobenius norm of the layer's change; of a DoRA's without its magnitude, which needs the model's weights."""
    if isinstance(layer, LoraLayer):
        return abs(layer.scale) * float(product_norm(layer.up.double(), layer.down.double()))
    return float(layer.delta(torch.float64).norm())


def _is_large_conv(module: str, layer: Layer) -> bool:
    """By the kernel; a LoHa or LoKr of factors does not tell it, and is known by its name."""
    if len(layer.weight_shape) == 2:
        return not isinstance(layer, LoraLayer) and _LARGE_CONV_NAME.search(module) is not None
    return layer.weight_shape[2:] != (1, 1)


def block_norms(lora: LoraFile) -> list[dict[str, Any]]:
    """For each block its number of layers and the norm of their changes together, in the model's order."""
    squares: dict[str, list[float]] = {}
    for module, layer in lora.layers.items():
        squares.setdefault(block_of(module), []).append(delta_norm(layer) ** 2)
    return [
        {"block": block, "layers": len(values), "norm": math.sqrt(sum(values))}
        for block, values in sorted(squares.items(), key=lambda item: _block_order(item[0]))
    ]


def frequent_tags(metadata: dict[str, str]) -> list[str]:
    """The tags most often trained on, where the file tells (``ss_tag_frequency``): a trigger word is among them."""
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        counts: Counter[str] = Counter()
        for tags in folders.values():
            counts.update({str(tag).strip(): int(count) for tag, count in tags.items()})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []  # other tools write this; a file is not worse for a strange one
    return [tag for tag, _ in counts.most_common(_SHOWN_TAGS)]


def _counts(values: list[Any]) -> dict[str, int]:
    return {f"{value:g}": count for value, count in sorted(Counter(values).items())}


def _block_order(block: str) -> tuple[str, int, int, str]:
    """Down, middle, up; numbers as numbers."""
    part, _, name = block.partition(" ")
    stages = ("rest", "down", "input", "mid", "up", "output")
    stage = next((place for place, start in enumerate(stages) if name.startswith(start)), 0)
    number = name.rpartition("_")[2]
    return part, stage, int(number) if number.isdigit() else 0, name
