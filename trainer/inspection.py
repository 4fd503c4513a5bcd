"""What is in a file or folder that holds weights: a LoRA, a base model, a checkpoint of a run, or something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.checkpoint_folders import LORA, MANIFEST, is_valid
from trainer.errors import UserError
from trainer.files import read_json
from trainer.lora.adapter_settings import TENSORS_NAME
from trainer.lora.inspect import inspect_lora
from trainer.lora.keys import PREFIXES, other_kind, parse_name
from trainer.runs.events import EventSink
from trainer.single_file.describe import describe_file, describe_folder
from trainer.single_file.header import read_header

_HINT = "Choose a .safetensors or .ckpt file, a model folder, a PEFT adapter or a checkpoint of a run."


def inspect_path(path: Path, *, layers: bool = False, events: EventSink | None = None) -> dict[str, Any]:
    """What it is, as plain values; see ``commands/inspect.py`` for the keys.

    Raises UserError when there is nothing, or nothing that holds weights, or the file is broken.
    """
    if path.is_dir():
        return _folder(path, layers, events)
    if not path.is_file():
        raise UserError("lora.missing", f"There is no file {path}.", "Check the path.")
    if path.suffix.lower() == ".ckpt":
        return describe_file(path)
    names = read_header(path, field="file").shapes
    if any(parse_name(name) or other_kind(name) or "lora" in name for name in names):
        return inspect_lora(path, layers=layers, events=events)
    return describe_file(path)


def _folder(path: Path, layers: bool, events: EventSink | None) -> dict[str, Any]:
    if (path / MANIFEST).is_file() and (path / LORA).is_file():
        return {**inspect_lora(path / LORA, layers=layers, events=events), "checkpoint": _checkpoint(path)}
    if (path / "model_index.json").is_file():
        return describe_folder(path, _family_of_folder(path))
    if any((path / part / TENSORS_NAME).is_file() for part in ("", *PREFIXES)):
        return inspect_lora(path, layers=layers, events=events)
    raise UserError("lora.missing", f"{path} is a folder that holds no model and no LoRA.", _HINT)


def _checkpoint(path: Path) -> dict[str, Any]:
    """Step and validation loss of a run's checkpoint, and whether its files are as they were written."""
    try:
        manifest = read_json(path / MANIFEST)
    except (OSError, ValueError):
        manifest = {}
    told = manifest if isinstance(manifest, dict) else {}
    return {"step": told.get("step"), "validation_loss": told.get("validation_loss"), "valid": is_valid(path)}


def _family_of_folder(path: Path) -> str:
    from trainer.families import FAMILIES

    return next((name for name, loader in FAMILIES.items() if loader.recognises(path)), "unknown")
