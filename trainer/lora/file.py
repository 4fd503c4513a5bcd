"""LoRA files: read in every layout in use, written in kohya's, which loads everywhere."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trainer.errors import UserError
from trainer.lora.adapter_settings import AdapterSettings, adapter_files
from trainer.lora.build import Tensors, build_layer
from trainer.lora.keys import other_kind, parse_name, sdxl_key, unify_keys
from trainer.lora.layers import Layer, LoraLayer, plain_shape
from trainer.lora.tensor_file import DTYPES, Entry, entry, header, layout, open_tensors, tensor_bytes, write_tensors

__all__ = [
    "LoraFile",
    "LoraLayer",
    "Precision",
    "fit_names",
    "network_metadata",
    "read_lora",
    "widest_precision",
    "write_lora",
]

Precision = Literal["fp16", "bf16", "float"]

SDXL_TEXT_WIDTH = 2048
"""Numbers a token has in SDXL: 768 of the first text encoder and 1280 of the second."""


@dataclass(frozen=True, eq=False)
class LoraFile:
    """A LoRA in memory: layers by kohya key, the file's text metadata, and the names that were not understood."""

    layers: Mapping[str, Layer]
    metadata: dict[str, str]
    unknown: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """The kinds of its layers, by name: ``["LoRA"]``, ``["DoRA"]``, ``["LoHa", "LoRA"]``."""
        return sorted({layer.name for layer in self.layers.values()})


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA in kohya, diffusers, PEFT or old diffusers layout, or a DoRA, LoHa or LoKr in LyCORIS' names.

    ``path`` is a file, or the folder of a PEFT adapter or of several for the parts of a model. Layers without alpha get
    their rank, as every tool does. Raises UserError for a file that is missing, broken, of another kind (OFT, GLoRA
    ...), not a LoRA, or whose tensors do not fit together or are not finite.
    """
    layers: dict[str, Layer] = {}
    metadata: dict[str, str] = {}
    unknown: list[str] = []
    for file_path, part in adapter_files(path):
        read = _read_file(file_path, part)
        _refuse_doubled(path, [module for module in read.layers if module in layers])
        layers |= read.layers
        metadata = read.metadata | metadata
        unknown += read.unknown
    if not layers:
        raise UserError(
            "lora.none", f"{path.name} holds no LoRA layers of Stable Diffusion.", "Choose a LoRA .safetensors file."
        )
    renamed = unify_keys(list(layers), sdxl=_is_for_sdxl(layers, metadata))
    keys = Counter(renamed.get(module, module) for module in layers)
    _refuse_doubled(path, [module for module, count in keys.items() if count > 1])
    return LoraFile({renamed.get(module, module): layer for module, layer in layers.items()}, metadata, unknown)


def _read_file(path: Path, part: str) -> LoraFile:
    """The layers of one file, under the keys that its names lead to; ``part``: what all of them are for, or ""."""
    with open_tensors(path) as file:
        names = list(file.keys())
        _refuse_other_kinds(path, names)
        parsed = {name: parse_name(name, part) for name in names}
        tensors = {name: _float_tensor(path, name, file.get_tensor(name)) for name, known in parsed.items() if known}
        metadata = dict(file.metadata() or {})
    settings = AdapterSettings.of(path, metadata)
    by_module: dict[str, Tensors] = {}
    paths: dict[str, str] = {}
    for name, tensor in tensors.items():
        known = parsed[name]
        assert known is not None
        _refuse_doubled(path, [known.module] if known.role in by_module.get(known.module, {}) else [])
        by_module.setdefault(known.module, {})[known.role] = tensor
        paths[known.module] = known.path
    layers: dict[str, Layer] = {}
    if any(role not in ("alpha", "mid") for roles in by_module.values() for role in roles):
        for module in sorted(by_module):
            alpha_of = partial(settings.alpha, paths[module])
            layers[module] = build_layer(by_module[module], alpha_of, partial(_broken_layer, path, module))
    return LoraFile(layers, metadata, sorted(name for name, known in parsed.items() if known is None))


def _refuse_doubled(path: Path, modules: list[str]) -> None:
    if modules:
        raise _broken(path, f"it holds the layer {modules[0]} twice, under two names")


def fit_names(lora: LoraFile, model_keys: Collection[str]) -> LoraFile:
    """The same LoRA, with SDXL's names for layers that the model has under those: a small file may not tell."""
    names = {module: sdxl_key(module) for module in lora.layers if module not in model_keys}
    layers = {
        names[module] if names.get(module) in model_keys else module: layer for module, layer in lora.layers.items()
    }
    return LoraFile(layers, lora.metadata, lora.unknown)


def write_lora(path: Path, lora: LoraFile, *, precision: Precision | None) -> None:
    """Write a LoRA with kohya's names, atomically; the same input gives the same bytes in any process.

    ``precision`` None keeps the number format of each tensor.

    Adds the ``sshs_*`` hashes that other tools recognise a LoRA by. Alphas stay float32, so that none is rounded.
    Raises UserError for values that are not finite in ``precision``.
    """
    entries = list(_entries(lora.layers, DTYPES[precision] if precision else None))
    refuse_overflow(path, entries, precision)
    metadata = {key: value for key, value in lora.metadata.items() if not key.startswith("sshs_")}
    metadata.setdefault("format", "pt")
    model_hash, legacy_hash = _sshs_hashes(entries, metadata)
    write_tensors(path, entries, {**metadata, "sshs_model_hash": model_hash, "sshs_legacy_hash": legacy_hash})


def widest_precision(loras: list[LoraFile]) -> Precision:
    """The number format that holds every value of these LoRAs."""
    layers = [layer for lora in loras for layer in lora.layers.values()]
    dtypes = {tensor.dtype for layer in layers for tensor in layer.tensors().values()}
    if dtypes <= {torch.float16}:
        return "fp16"
    return "bf16" if dtypes <= {torch.bfloat16} else "float"


def network_metadata(layers: Mapping[str, Layer], base_model_version: str | None) -> dict[str, str]:
    """The metadata that other tools need to know a LoRA: base model, rank and alpha, ``Dynamic`` where they differ."""
    linear = [layer for layer in layers.values() if len(plain_shape(layer.weight_shape)) == 2]
    conv = [layer for layer in layers.values() if len(plain_shape(layer.weight_shape)) == 4]
    arguments = {"conv_dim": _common(conv, "rank"), "conv_alpha": _common(conv, "alpha")} if conv and linear else {}
    plain = all(layer.is_plain for layer in layers.values())
    metadata = {
        "ss_network_module": "networks.lora" if plain else "lycoris.kohya",
        "ss_network_dim": _common(linear or conv, "rank"),
        "ss_network_alpha": _common(linear or conv, "alpha"),
        "ss_network_args": json.dumps(arguments if plain else arguments | _lycoris_arguments(layers)),
    }
    if base_model_version:
        metadata["ss_base_model_version"] = base_model_version
        metadata["ss_v2"] = str(base_model_version.startswith("sd_v2"))
    return metadata


def _lycoris_arguments(layers: Mapping[str, Layer]) -> dict[str, str]:
    """What LyCORIS calls the kind, and the direction of DoRA's norm."""
    kinds = {layer.kind for layer in layers.values()}
    arguments = {"algo": {"LoRA": "locon"}.get(kind := kinds.pop(), kind.lower())} if len(kinds) == 1 else {}
    magnitudes = [layer.magnitude for layer in layers.values() if layer.magnitude is not None]
    if magnitudes:
        arguments |= {"dora_wd": "True", "wd_on_output": str(magnitudes[0].shape[0] != 1)}
    return arguments


def _common(layers: list[Layer], name: Literal["rank", "alpha"]) -> str:
    values = {layer.rank if name == "rank" else layer.alpha for layer in layers}
    return f"{values.pop():g}" if len(values) == 1 else "Dynamic"


def _entries(layers: Mapping[str, Layer], dtype: torch.dtype | None) -> Iterator[Entry]:
    for module, layer in sorted(layers.items()):
        yield entry(f"{module}.alpha", torch.tensor(layer.alpha, dtype=torch.float32))
        for name, tensor in layer.tensors().items():
            yield entry(f"{module}.{name}", tensor.detach().to("cpu", dtype or tensor.dtype))


def refuse_overflow(path: Path, entries: list[Entry], precision: Precision | None) -> None:
    """Raise UserError where a number format is too small for a value."""
    bad = [item.name for item in entries if not bool(torch.isfinite(item.load()).all())]
    limit = f"too large for {precision} or " if precision else ""
    if bad:
        raise UserError(
            "lora.overflow",
            f"{len(bad)} tensors of {path.name} are {limit}not finite, first {bad[0]}.",
            "Save as bf16 or float; if that fails too, the LoRA itself is broken.",
            field="output.precision",
        )


def _sshs_hashes(entries: list[Entry], metadata: dict[str, str]) -> tuple[str, str]:
    """Hashes of the file as it would be with ``ss_*`` metadata only, so that editing a title does not change them.

    The first is over the tensors' bytes; the second over 64 KiB at 1 MiB, 8 digits, as the oldest tools use it.
    """
    ordered = layout(entries)
    start = header(ordered, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    body = hashlib.sha256()
    window, position = bytearray(), len(start)
    first, last = 0x100000, 0x110000
    window += start[first:last]
    for item in ordered:
        data = tensor_bytes(item.load())
        body.update(data)
        window += data[max(0, first - position) : max(0, last - position)]
        position += len(data)
    return body.hexdigest(), hashlib.sha256(window).hexdigest()[:8]


def _is_for_sdxl(layers: Mapping[str, Layer], metadata: dict[str, str]) -> bool:
    """As the file says, or by the width of the text that its layers read."""
    said = metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture")
    if said:
        return said.startswith(("sdxl", "stable-diffusion-xl"))
    return any(
        module.endswith(("attn2_to_k", "attn2_to_v")) and layer.weight_shape[1] == SDXL_TEXT_WIDTH
        for module, layer in layers.items()
    )


def _refuse_other_kinds(path: Path, names: Iterable[str]) -> None:
    kinds = Counter(kind for name in names if (kind := other_kind(name)))
    if kinds:
        kind, count = kinds.most_common(1)[0]
        raise UserError(
            "lora.kind",
            f"{path.name} is a {kind} file ({count} such tensors); LoRA, DoRA, LoHa and LoKr can be read.",
            "Convert it to one of these with the tool that made it.",
        )


def _float_tensor(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise _broken(path, f"{name} holds {str(tensor.dtype).removeprefix('torch.')} numbers")
    if tensor.dtype.itemsize == 1:
        tensor = tensor.to(torch.float16)  # torch cannot compute with 8 bit floats
    if not bool(torch.isfinite(tensor).all()):
        raise _broken(path, f"{name} holds NaN or infinity")
    return tensor.clone()  # the file is mapped into memory: it may be replaced while the tensor lives


def _broken_layer(path: Path, module: str, what: str) -> UserError:
    return _broken(path, f"{module} {what}")


def _broken(path: Path, what: str) -> UserError:
    return UserError("lora.broken", f"{path.name} is not a usable LoRA: {what}.", "Get the file again from its source.")
