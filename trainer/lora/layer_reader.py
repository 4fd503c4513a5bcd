"""A LoRA file layer by layer: for looking into it, where one broken layer must not hide the others.

``file.read_lora`` reads a file to use it, and refuses one that is not sound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import UserError
from trainer.lora.adapter_settings import AdapterSettings, adapter_files
from trainer.lora.build import Tensors, build_layer
from trainer.lora.file import SDXL_TEXT_WIDTH
from trainer.lora.keys import TensorName, naming, other_kind, parse_name, unify_keys
from trainer.lora.layers import Layer
from trainer.lora.tensor_file import open_tensors

_TEXT_READERS = ("attn2_to_k", "attn2_to_v")
_WIDE_ROLES = ("down", "hada_w1_b")
"""Tensors whose second side is the layer's number of inputs."""


@dataclass(frozen=True)
class FoundLayer:
    """One layer of a file.

    Attributes:
        key: kohya key, the family's own.
        layer: None where its tensors make none.
        fault: what is wrong with it, such as ``holds NaN or infinity``; empty for a sound one.
    """

    key: str
    layer: Layer | None
    fault: str = ""


@dataclass(frozen=True)
class Contents:
    """A LoRA's table of contents.

    Attributes:
        names: every tensor's name.
        naming: whose names most have.
        formats: number of tensors by number format as safetensors names it, alphas left out.
        metadata: of the file, of all files together for a folder.
        unknown: names that were not understood.
        other_kinds: number of tensors of kinds that are not read (``OFT``), by kind.
        keys: the kohya keys of the layers.
        text_widths: the numbers of inputs of the layers that read text.
        doubled: keys that two layers have.
    """

    names: list[str]
    naming: str
    formats: dict[str, int]
    metadata: dict[str, str]
    unknown: list[str]
    other_kinds: dict[str, int]
    keys: list[str]
    text_widths: set[int]
    doubled: list[str]


class LayerReader:
    """Opens the files of a LoRA (a file, or a PEFT folder) and reads one layer at a time."""

    def __init__(self, path: Path) -> None:
        """Raises UserError when a file is missing or is no safetensors file."""
        self._stack = ExitStack()
        self._modules: dict[str, _Module] = {}
        names: list[str] = []
        known: list[str] = []
        formats: Counter[str] = Counter()
        metadata: dict[str, str] = {}
        doubled: list[str] = []
        widths: set[int] = set()
        try:
            for file_path, part in adapter_files(path):
                file = self._stack.enter_context(open_tensors(file_path))
                own = dict(file.metadata() or {})
                metadata = own | metadata
                settings = AdapterSettings.of(file_path, own)
                for name in file.keys():  # noqa: SIM118
                    names.append(name)
                    found = parse_name(name, part)
                    if found is None or other_kind(name):
                        continue
                    known.append(name)
                    module = self._modules.setdefault(found.module, _Module(file, settings, found.path, {}))
                    if found.role in module.names or module.file is not file:
                        doubled.append(found.module)
                    module.names[found.role] = name
                    if found.role != "alpha":
                        formats[str(file.get_slice(name).get_dtype())] += 1
                    widths |= _text_width(file, name, found)
        except BaseException:
            self._stack.close()
            raise
        renamed = unify_keys(list(self._modules), sdxl=_says_sdxl(metadata, widths))
        self._keys = {module: renamed.get(module, module) for module in self._modules}
        doubled += [key for key, count in Counter(self._keys.values()).items() if count > 1]
        kinds = Counter(kind for name in names if (kind := other_kind(name)))
        unknown = sorted(set(names) - set(known) - {name for name in names if other_kind(name)})
        self.contents = Contents(
            names=names,
            naming=naming(known),
            formats=dict(formats.most_common()),
            metadata=metadata,
            unknown=unknown,
            other_kinds=dict(kinds),
            keys=sorted(self._keys.values()),
            text_widths=widths,
            doubled=sorted(set(doubled)),
        )

    def __enter__(self) -> LayerReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def layers(self) -> Iterator[FoundLayer]:
        """Every layer in the order of its key; the tensors of one at a time are in memory."""
        for module, key in sorted(self._keys.items(), key=lambda pair: pair[1]):
            yield _read_layer(key, self._modules[module])


@dataclass(frozen=True)
class _Module:
    file: Any
    settings: AdapterSettings
    dotted: str
    names: dict[Any, str]


def _read_layer(key: str, module: _Module) -> FoundLayer:
    tensors: Tensors = {role: _as_float(module.file.get_tensor(name)) for role, name in module.names.items()}
    if any(not tensor.is_floating_point() for tensor in tensors.values()):
        return FoundLayer(key, None, "holds numbers that are no floating-point numbers")
    if any(not bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        return FoundLayer(key, None, "holds NaN or infinity")
    refuse: Callable[[str], UserError] = partial(UserError, "lora.broken")
    try:
        return FoundLayer(key, build_layer(tensors, partial(module.settings.alpha, module.dotted), refuse))
    except UserError as error:
        return FoundLayer(key, None, error.problems[0].message)


def _as_float(tensor: Tensor) -> Tensor:
    """8 bit floats as fp16, which holds them exactly: torch cannot compute with them."""
    return tensor.to(torch.float16) if tensor.is_floating_point() and tensor.dtype.itemsize == 1 else tensor


def _text_width(file: Any, name: str, found: TensorName) -> set[int]:
    if not found.module.endswith(_TEXT_READERS) or found.role not in _WIDE_ROLES:
        return set()
    shape = file.get_slice(name).get_shape()
    return {int(shape[1])} if len(shape) > 1 else set()


def _says_sdxl(metadata: Mapping[str, str], widths: set[int]) -> bool:
    said = metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture")
    return said.startswith(("sdxl", "stable-diffusion-xl")) if said else SDXL_TEXT_WIDTH in widths
