"""Merging LoRAs of any kind into a model: ``W + sum(strength * change)``, written as a model of its own.

The model is a folder in diffusers layout or a single file, and so is the result, in all four combinations. Weights pass
through by blocks of rows, so that memory stays small next to the model. A tensor that no LoRA changes keeps its bytes.
"""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.errors import Problem, UserError
from trainer.files import read_json
from trainer.lora.file import Precision
from trainer.lora.hashes import file_sha256
from trainer.lora.merge_items import Items
from trainer.lora.merge_plan import CAST_PARTS, Base, MergePlan, model_index, open_base, plan_merge
from trainer.lora.merge_progress import MergeProgress
from trainer.lora.merge_recipe import MERGE_KEY
from trainer.lora.merge_weights import Sums, one_thread
from trainer.lora.outputs import form_of, out_problems
from trainer.lora.strengths import Strength
from trainer.lora.tensor_file import DTYPES
from trainer.lora.weight_file import Item, Stored, size_of_file, write_weights
from trainer.outputs import new_output, space_problems
from trainer.runs.events import EventSink
from trainer.single_file.kinds import LAYOUTS
from trainer.single_file.original import marks, original_tensors

CPU = torch.device("cpu")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx", ".h5")
_STALE_KEYS = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")
_EMA = "model_ema."


@dataclass(frozen=True)
class _Output:
    """One weight file to write: its place in the result (empty for the result itself), its tensors and metadata."""

    place: str
    items: list[Item]
    metadata: dict[str, str]


def merge_into_model(
    base_path: Path,
    loras: Sequence[tuple[Path, Strength | float]],
    out: Path,
    *,
    precision: Precision = "float",
    save_precision: Precision | None = None,
    device: torch.device = CPU,
    overwrite: bool = False,
    allow_partial: bool = False,
    dry_run: bool = False,
    events: EventSink,
) -> dict[str, Any]:
    """Write a copy of a model with LoRAs in its UNet and text encoders.

    Args:
        base_path: model folder in diffusers layout with safetensors weights, or a .safetensors or .ckpt file.
        loras: files and how strongly each is merged; any finite numbers.
        out: a new folder, or a new file if it ends in .safetensors.
        precision: number format of the sums.
        save_precision: number format of the weights written; None keeps each weight's own.
        device: what computes the sums.
        overwrite: whether a model that is there already may be replaced.
        allow_partial: leave out LoRA layers that the model does not have, where it has most of them.
        dry_run: find out what would be done, and write nothing.
        events: gets the progress.

    Returns what was done: tensors changed, files merged, sizes. Raises UserError, and leaves nothing behind, when a
    LoRA layer has no place in the model or does not fit, the result is not finite, or ``out`` cannot be written.
    """
    given = [(path, value if isinstance(value, Strength) else Strength(value)) for path, value in loras]
    if base_path.is_dir():
        model_index(base_path)  # the first thing to be wrong
    problems = out_problems(out, [base_path, *(path for path, _ in given)], overwrite=overwrite)
    problems += _strength_problems(given)
    if problems:
        raise UserError.many(problems)
    sums = Sums(DTYPES[precision], device)
    source = _as_folder(base_path, events) if base_path.is_file() and form_of(out) == "folder" else base_path
    with open_base(source) as base:
        plan = plan_merge(base, given, allow_partial=allow_partial)
        record = _record(base_path, given)
        items = Items(base, plan, sums, DTYPES[save_precision] if save_precision else None)
        outputs = _outputs(base, items, form_of(out), record)
        answer = {**_answer(out, plan, outputs, given, record), "dry_run": dry_run}
        if problems := space_problems(out, answer["size_bytes"] + _rest_bytes(base, form_of(out))):
            raise UserError.many(problems)
        if not dry_run:
            _tell(base, plan, events)
            _write(base, outputs, out, events)
    return answer


def _write(base: Base, outputs: list[_Output], out: Path, events: EventSink) -> None:
    progress = MergeProgress([item for output in outputs for item in output.items], events)
    try:
        with one_thread(), new_output(out) as temporary:
            if form_of(out) == "folder":
                _copy_rest(base.path, temporary)
            for output in outputs:
                path = temporary / output.place if output.place else temporary
                path.parent.mkdir(parents=True, exist_ok=True)
                write_weights(path, [progress.watched(item) for item in output.items], output.metadata)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"out: the disk filled up while {out.name} was written; nothing of it was kept."
        raise UserError("out.disk_full", message, "Free some space, or choose another disk.", "out") from error


def _outputs(base: Base, items: Items, form: str, record: dict[str, Any]) -> list[_Output]:
    if form == "folder":
        return [
            _Output(f"{part}/{file.path.name}", items.of_file(file), _metadata(file.metadata, record, items, file.path))
            for part, file in base.files
        ]
    if base.is_file:
        ((_, file),) = base.files
        return [_Output("", items.of_file(file), _metadata(file.metadata, record, items, file.path))]
    return [_as_file(base, items, record)]


def _as_file(base: Base, items: Items, record: dict[str, Any]) -> _Output:
    """A model folder as a single file in the original layout."""
    from trainer.families import FAMILIES  # it loads diffusers, which files alone do not need

    family = next((name for name, loader in FAMILIES.items() if loader.recognises(base.path)), None)
    layout = next((layout for layout in LAYOUTS if layout.family == family), None)
    if layout is None:
        message = f"base: {base.path.name} is of a kind that has no single-file form here."
        raise UserError("merge.original", message, "Leave .safetensors out of the result's name.", "base")
    shapes = {
        part: {name: base.spot(part, name).shape for name in names} for part, names in base.parts.items() if names
    }
    empty, told = marks(layout, _scheduler(base.path))
    tensors = items.of_originals(original_tensors(layout, shapes, base.path))
    tensors += [Item(name, Stored("F32", (0,), 0), lambda: iter(())) for name in empty]
    return _Output("", tensors, _described(told, record))


def _scheduler(folder: Path) -> dict[str, Any]:
    try:
        values = read_json(folder / "scheduler" / "scheduler_config.json")
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _metadata(metadata: dict[str, str], record: dict[str, Any], items: Items, path: Path) -> dict[str, str]:
    """What a file says about itself: as before, and what was merged into it."""
    kept = {"format": "pt", **{key: value for key, value in metadata.items() if key not in _STALE_KEYS}}
    return _described(kept, record) if any(file == path for file, _ in items.plan.changes) else kept


def _described(kept: dict[str, str], record: dict[str, Any]) -> dict[str, str]:
    earlier = {"before": kept[MERGE_KEY]} if MERGE_KEY in kept else {}
    names = ", ".join([record["base"], *record["files"]])
    merged = {MERGE_KEY: json.dumps({**record, **earlier}, ensure_ascii=False), "modelspec.merged_from": names}
    return {"format": "pt", **kept, **merged}


def _record(base_path: Path, loras: list[tuple[Path, Strength]]) -> dict[str, Any]:
    ratios = [strength.overall if strength.is_uniform else str(strength) for _, strength in loras]
    return {
        "mode": "model",
        "base": base_path.name,
        "files": [path.name for path, _ in loras],
        "sha256": [file_sha256(path) for path, _ in loras],
        "ratios": ratios,
    }


def _answer(
    out: Path, plan: MergePlan, outputs: list[_Output], loras: list[tuple[Path, Strength]], record: dict[str, Any]
) -> dict[str, Any]:
    return {
        "out": str(out),
        "form": form_of(out),
        "changed_weights": sum(len({change.source for change in changes}) for changes in plan.changes.values()),
        "tensors": sum(len(output.items) for output in outputs),
        "size_bytes": sum(size_of_file(output.items, output.metadata) for output in outputs),
        "layers": {str(path): count for (path, _), count in zip(loras, plan.layers, strict=True)},
        "left_out": plan.left_out,
        "unknown_keys": plan.unknown,
        **record,
    }


def _tell(base: Base, plan: MergePlan, events: EventSink) -> None:
    """Warn of what a user may not expect."""
    for path, modules in plan.left_out.items():
        message = f"{Path(path).name}: {len(modules)} layers are not in the model and are left out: {modules[0]} ..."
        events.emit("warning", code="merge.left_out", message=message, hint="")
    if any(name.startswith(_EMA) for _, file in base.files for name in file.table):
        message = f"{base.path.name} carries averaged (EMA) weights for further training; they stay unmerged."
        events.emit("warning", code="merge.ema", message=message, hint="Programs that draw do not use them.")


def _strength_problems(loras: list[tuple[Path, Strength]]) -> list[Problem]:
    numbers = [[strength.overall, *(number for _, number in strength.named)] for _, strength in loras]
    if all(math.isfinite(number) for row in numbers for number in row):
        return []
    return [Problem("merge.ratio", "A ratio is not a finite number.", "Give numbers such as 0.8 or -1.", "lora")]


def _as_folder(path: Path, events: EventSink) -> Path:
    from trainer.single_file.convert import model_folder_of  # it loads diffusers, which files alone do not need

    return model_folder_of(path, field="base", events=events, inpainting=True)


def _rest_of(base_dir: Path) -> list[Path]:
    """What a model folder needs beside the merged weights: configs, tokenizers, other parts.

    Pickles beside safetensors are left out: they would hold the unmerged weights.
    """
    rest = [base_dir / "model_index.json"]
    for part in (name for name in model_index(base_dir) if not name.startswith("_") and (base_dir / name).is_dir()):
        has_safetensors = any((base_dir / part).glob("*.safetensors"))
        rest += [
            path
            for path in sorted((base_dir / part).rglob("*"))
            if path.is_file()
            and not (path.suffix == ".safetensors" and part in CAST_PARTS)
            and not (has_safetensors and path.suffix in _PICKLES)
        ]
    return rest


def _rest_bytes(base: Base, form: str) -> int:
    return sum(path.stat().st_size for path in _rest_of(base.path)) if form == "folder" else 0


def _copy_rest(base_dir: Path, folder: Path) -> None:
    for source in _rest_of(base_dir):
        target = folder / source.relative_to(base_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
