"""The forms that a LoRA is written in: kohya's names, diffusers', and PEFT's folders; and what each cannot hold.

kohya's holds everything and is read nearly everywhere. diffusers' and PEFT's name a layer by its dotted path, and keep
alpha beside the tensors as JSON (``adapter_settings.py``), from which it comes back to the digit. Both know LoRA, and
DoRA with a magnitude for each output (``lora_magnitude_vector`` of peft).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from trainer.errors import Problem
from trainer.lora.adapter_settings import CONFIG_NAME, METADATA_KEY, TENSORS_NAME, adapter_config, part_settings
from trainer.lora.file import LoraFile
from trainer.lora.keys import part_of
from trainer.lora.layers import Layer, LoraLayer
from trainer.lora.module_paths import module_path
from trainer.lora.tensor_file import Entry, entry

Form = Literal["kohya", "diffusers", "peft"]
FORMS: tuple[Form, ...] = get_args(Form)

PartLayers = dict[str, dict[str, LoraLayer]]
"""Layers by part of the model and dotted path."""


@dataclass(frozen=True)
class TensorFile:
    """One .safetensors file to write, and the JSON files that go beside it."""

    entries: list[Entry]
    metadata: dict[str, str]
    beside: dict[str, Any] = field(default_factory=dict)


def refusals(lora: LoraFile, form: Form) -> list[Problem]:
    """Why the layers cannot be written in a form; empty where they can."""
    if form == "kohya":
        return []
    return [*_strange_names(lora, form), *_strange_kinds(lora, form), *_strange_magnitudes(lora, form)]


def diffusers_file(lora: LoraFile, metadata: Mapping[str, str]) -> TensorFile:
    """One file with ``unet.mid_block.attentions.0.proj_in.lora_A.weight`` and the like."""
    parts = by_part(lora)
    settings = {
        f"{part}.{name}": value for part, layers in parts.items() for name, value in part_settings(layers).items()
    }
    entries = [
        entry(f"{part}.{_as_transformers(name) if part != 'unet' else name}", tensor)
        for part, layers in parts.items()
        for name, tensor in _peft_tensors(layers)
    ]
    return TensorFile(entries, {**metadata, METADATA_KEY: json.dumps(settings, indent=2, sort_keys=True)})


def peft_files(lora: LoraFile, metadata: Mapping[str, str]) -> dict[Path, TensorFile]:
    """An adapter for each part of the model, in a folder of the part's name.

    PEFT takes a layer's name as the model has it, and transformers 5 took the level ``text_model`` out of
    ``CLIPTextModel`` (SD 1, SD 2, SDXL's first), not of ``CLIPTextModelWithProjection`` (SDXL's second).
    """
    files = {}
    for part, layers in by_part(lora).items():
        if part == "text_encoder":
            layers = {path.removeprefix("text_model."): layer for path, layer in layers.items()}
        entries = [entry(f"base_model.model.{name}", tensor) for name, tensor in _peft_tensors(layers)]
        files[Path(part) / TENSORS_NAME] = TensorFile(entries, dict(metadata), {CONFIG_NAME: adapter_config(layers)})
    return files


def by_part(lora: LoraFile) -> PartLayers:
    """The layers by part and dotted path. Raises ValueError for what ``refusals`` tells of."""
    parts: PartLayers = {}
    for key, layer in lora.layers.items():
        place = module_path(key)
        if place is None or not isinstance(layer, LoraLayer):
            raise ValueError(f"{key} has no place in this form")
        parts.setdefault(place[0], {})[place[1]] = layer
    return {part: dict(sorted(layers.items())) for part, layers in sorted(parts.items(), reverse=True)}


def _peft_tensors(layers: Mapping[str, LoraLayer]) -> Iterator[tuple[str, Tensor]]:
    for path, layer in layers.items():
        yield f"{path}.lora_A.weight", layer.down
        yield f"{path}.lora_B.weight", layer.up
        if layer.magnitude is not None:
            flat = layer.magnitude.flatten()
            yield f"{path}.lora_magnitude_vector", flat.reshape(1, -1, 1, 1) if layer.is_conv else flat


def _as_transformers(name: str) -> str:
    """transformers, which loads the text encoders' adapters, puts the adapter's name before a last ``weight`` only."""
    return f"{name}.weight" if name.endswith("lora_magnitude_vector") else name


def _strange_names(lora: LoraFile, form: Form) -> list[Problem]:
    strange = [key for key in lora.layers if module_path(key) is None]
    if not strange:
        return []
    message = f"to: {form} names layers by their path, and {len(strange)} layers have none here, such as {strange[0]}."
    return [Problem("convert.names", message, "Keep the kohya form.", "to")]


def _strange_kinds(lora: LoraFile, form: Form) -> list[Problem]:
    kinds = sorted({layer.kind for layer in lora.layers.values() if not isinstance(layer, LoraLayer)})
    if not kinds:
        return []
    message = f"to: {form} holds LoRA layers, and the file has {' and '.join(kinds)}."
    hint = "Give a rank: they become LoRA layers of it, and the error is told. Or keep the kohya form."
    return [Problem("convert.kind", message, hint, "rank")]


def _strange_magnitudes(lora: LoraFile, form: Form) -> list[Problem]:
    """DoRA for each input is what the paper and most trainers have; PEFT has it for each output alone."""
    magnitudes = {key: layer.magnitude for key, layer in lora.layers.items() if layer.magnitude is not None}
    by_input = [key for key, value in magnitudes.items() if not _is_by_output(value, lora.layers[key])]
    hint = "Keep the kohya form, which ComfyUI, Forge and this program read; or merge it into a model."
    if by_input:
        message = (
            f"to: {form} knows DoRA with a length for each output; {len(by_input)} layers have one for each input."
        )
        return [Problem("convert.dora", message, hint, "to")]
    has: dict[str, set[bool]] = {}
    for key in lora.layers:
        has.setdefault(part_of(key) or "", set()).add(key in magnitudes)
    mixed = [part for part, answers in has.items() if len(answers) > 1]
    if mixed:
        message = f"to: {form} knows DoRA for all layers of a part or none; in {', '.join(mixed)} only some have it."
        return [Problem("convert.dora", message, hint, "to")]
    return []


def _is_by_output(magnitude: Tensor, layer: Layer) -> bool:
    return magnitude.shape[0] == layer.weight_shape[0] and magnitude.numel() == magnitude.shape[0]
