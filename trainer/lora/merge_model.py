"""Merging LoRAs of any kind into a model: ``W + sum(ratio * change)``, written as a model folder of its own.

Weights pass through one tensor at a time, so that memory stays small next to the model.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import UserError
from trainer.files import read_json
from trainer.lora.file import LoraFile, Precision, fit_names, read_lora
from trainer.lora.keys import PREFIXES, kohya_key
from trainer.lora.layers import Layer, add_changes
from trainer.lora.merge import MERGE_KEY
from trainer.lora.tensor_file import DTYPES, Entry, dtype_of, open_tensors, write_tensors
from trainer.runs.events import EventSink

_CAST_PARTS = (*PREFIXES, "vae")  # what --save-precision applies to
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx", ".h5")


_Change = tuple[Layer, float]
"""What is added to one weight, and how much of it."""


@dataclass
class _Plan:
    """Which weight of which file changes by what."""

    changes: dict[Path, dict[str, list[_Change]]] = field(default_factory=dict)
    tensors: int = 0


def merge_into_model(
    base_dir: Path,
    loras: list[tuple[Path, float]],
    out_dir: Path,
    *,
    precision: Precision = "float",
    save_precision: Precision | None = None,
    events: EventSink,
) -> dict[str, Any]:
    """Write a copy of the diffusers folder ``base_dir`` with the LoRAs in its UNet and text encoders.

    Args:
        base_dir: model in diffusers layout with safetensors weights.
        loras: files and their ratios, any finite numbers.
        out_dir: new folder; must not exist or be empty.
        precision: number format of the sum.
        save_precision: number format of the weights written; None keeps each weight's own.
        events: gets the progress.

    Returns what was done: layers changed, files merged. Raises UserError, and leaves nothing behind, when a LoRA layer
    has no place in the model or does not fit, or a result is not finite.
    """
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise UserError("merge.exists", f"out: {out_dir} exists already.", "Choose another name.", "out")
    read = [(path, read_lora(path), ratio) for path, ratio in loras]
    plan = _plan(base_dir, read)
    record = {"mode": "model", "files": [path.name for path, _ in loras], "ratios": [ratio for _, ratio in loras]}
    with _new_folder(out_dir) as folder:
        _copy_rest(base_dir, folder)
        writer = _Writer(DTYPES[precision], DTYPES[save_precision] if save_precision else None, plan, events, record)
        for part in (part for part in _CAST_PARTS if (base_dir / part).is_dir()):
            for source in _weight_files(base_dir / part):
                writer.write(source, folder / part / source.name)
    return {
        "out": str(out_dir),
        "changed_weights": sum(len(changes) for changes in plan.changes.values()),
        "unknown_keys": {str(path): lora.unknown for path, lora, _ in read if lora.unknown},
        **record,
    }


def _plan(base_dir: Path, loras: list[tuple[Path, LoraFile, float]]) -> _Plan:
    """Find each LoRA layer's weight. Raises UserError with one problem per LoRA that does not fit."""
    _model_index(base_dir)
    plan = _Plan()
    places: dict[str, list[tuple[Path, str, tuple[int, ...]]]] = {}
    sdxl = (base_dir / "text_encoder_2").is_dir()
    for part in (part for part in _CAST_PARTS if (base_dir / part).is_dir()):
        for source in _weight_files(base_dir / part):
            with open_tensors(source) as file:
                names = list(file.keys())
                plan.tensors += len(names)
                for name in (name for name in names if part in PREFIXES and name.endswith(".weight")):
                    key = kohya_key(part, name.removesuffix(".weight"), sdxl=sdxl)
                    places.setdefault(key, []).append((source, name, tuple(file.get_slice(name).get_shape())))
    problems = []
    for path, read, ratio in loras:
        lora = fit_names(read, places)
        strangers = sorted(module for module in lora.layers if module not in places)
        misfits = [
            f"{module} ({'x'.join(map(str, layer.weight_shape))}, the model has {'x'.join(map(str, shape))})"
            for module, layer in lora.layers.items()
            for _, _, shape in places.get(module, [])
            if not layer.fits(shape)
        ]
        if strangers or misfits:
            problems.append(_does_not_fit(path, strangers, misfits))
            continue
        for module, layer in lora.layers.items():
            for source, name, _ in places[module]:
                plan.changes.setdefault(source, {}).setdefault(name, []).append((layer, ratio))
    if problems:
        raise UserError.many([problem for error in problems for problem in error.problems])
    return plan


def _model_index(base_dir: Path) -> dict[str, Any]:
    """The model's list of parts. Raises UserError when the folder is not a model."""
    try:
        index = read_json(base_dir / "model_index.json")
    except (OSError, ValueError):
        index = None
    if not isinstance(index, dict):
        message = f"base: {base_dir} is not a model folder."
        raise UserError("model.not_a_model", message, "Choose a folder in diffusers layout.", "base")
    return index


def _does_not_fit(path: Path, strangers: list[str], misfits: list[str]) -> UserError:
    listed = [*strangers, *misfits]
    names = ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
    what = f"{len(strangers)} layers are not in the model" if strangers else f"{len(misfits)} layers have another shape"
    return UserError(
        "merge.no_fit",
        f"{path.name} does not fit this model: {what}: {names}.",
        "Use the model it was made for.",
        "lora",
    )


@dataclass
class _Writer:
    """Writes weight files with their changes, counting tensors for the progress."""

    compute: torch.dtype
    save: torch.dtype | None
    plan: _Plan
    events: EventSink
    record: dict[str, Any]
    done: int = 0

    def write(self, source: Path, target: Path) -> None:
        changes = self.plan.changes.get(source, {})
        with open_tensors(source) as file:
            metadata = {"format": "pt", **(file.metadata() or {})}
            if changes:
                metadata[MERGE_KEY] = json.dumps(self.record, ensure_ascii=False)
            entries = [self._entry(file, name, changes.get(name, [])) for name in file.keys()]  # noqa: SIM118
            write_tensors(target, entries, metadata)

    def _entry(self, file: Any, name: str, changes: list[_Change]) -> Entry:
        part = file.get_slice(name)
        dtype = dtype_of(part, name)
        target = self.save if self.save is not None and dtype.is_floating_point else dtype

        def load() -> Tensor:
            self.done += 1
            self.events.emit("progress", what="merging", done=self.done, total=self.plan.tensors)
            return self._merged(name, file.get_tensor(name), changes).to(target)

        return Entry(name, target, tuple(part.get_shape()), load)

    def _merged(self, name: str, weight: Tensor, changes: list[_Change]) -> Tensor:
        if not changes:
            return weight
        result = add_changes(weight, changes, self.compute)
        target = self.save or weight.dtype
        if not bool(torch.isfinite(result.to(target)).all()):
            message = f"The merged weight {name} is too large for {str(target).removeprefix('torch.')}, or not finite."
            raise UserError(
                "merge.overflow", message, "Use smaller ratios, or save as bf16 or float.", "save_precision"
            )
        return result


def _weight_files(part_dir: Path) -> list[Path]:
    """The safetensors files of a part of the model. Raises UserError when its weights come as pickles only."""
    files = sorted(path for path in part_dir.glob("*.safetensors") if "non_ema" not in path.name)
    if not files:
        message = f"base: {part_dir.name} has no .safetensors weights in {part_dir}."
        raise UserError("model.no_safetensors", message, "Save the model as safetensors first.", "base")
    return files


def _copy_rest(base_dir: Path, folder: Path) -> None:
    """Copy what a model folder needs beside the merged weights: configs, tokenizers, other parts.

    Pickles beside safetensors are left out: they would hold the unmerged weights.
    """
    index = _model_index(base_dir)
    shutil.copyfile(base_dir / "model_index.json", folder / "model_index.json")
    for part in (name for name in index if not name.startswith("_") and (base_dir / name).is_dir()):
        has_safetensors = any((base_dir / part).glob("*.safetensors"))
        for source in sorted(path for path in (base_dir / part).rglob("*") if path.is_file()):
            if (source.suffix == ".safetensors" and part in _CAST_PARTS) or (
                has_safetensors and source.suffix in _PICKLES
            ):
                continue
            target = folder / source.relative_to(base_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that appears under its name only when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        if target.is_dir():
            target.rmdir()  # empty, as was checked; Windows cannot rename over it
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
