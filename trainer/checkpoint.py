"""Checkpoints: complete or not there. A folder counts only with a manifest whose hashes its files match."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from trainer.files import fsync_folder, read_json, write_json

LORA, STATE, MANIFEST = "lora.safetensors", "state.pt", "manifest.json"

_NAME = re.compile(r"step-(\d{6,})")
_UNFINISHED = ".unfinished-"
_DAMAGED = "damaged-"


def save_checkpoint(
    folder: Path,
    step: int,
    state: dict[str, Any],
    write_lora: Callable[[Path], None],
    *,
    validation_loss: float | None = None,
    merged: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write ``folder/step-000100`` with the LoRA, the training state and a manifest of their hashes.

    It is made beside its place, flushed to disk and renamed, so that a crash leaves it whole or absent.

    Args:
        folder: where the run's checkpoints lie.
        step: optimizer steps done.
        state: what training needs to go on; only what ``torch.load(weights_only=True)`` reads.
        write_lora: writes the LoRA as it is now to the path it is given.
        validation_loss: of this very step, for the manifest; None where it was not validated. One that is not
            a finite number is written as None too, as JSON has no such numbers.
        merged: what the LoRA is trained on top of, for the manifest; see ``continuing.Continuation``.

    Raises:
        OSError: the disk is full or refuses; nothing is left behind then.
    """
    target = checkpoint_at(folder, step)
    if is_valid(target):
        return target  # saved already, by a pause or a request
    unfinished = folder / f"{_UNFINISHED}{target.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        write_lora(unfinished / LORA)
        with (unfinished / STATE).open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        files = {name: {"sha256": _sha256(unfinished / name)} for name in (LORA, STATE)}
        loss = validation_loss if validation_loss is not None and math.isfinite(validation_loss) else None
        manifest = {"step": step, "validation_loss": loss, "files": files, "merged": list(merged)}
        write_json(unfinished / MANIFEST, manifest)
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
        fsync_folder(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def newest_checkpoint(folder: Path, warn: Callable[[Path], None]) -> Path | None:
    """The valid checkpoint of the highest step, or None.

    Unfinished ones are removed. Damaged ones are told to ``warn`` and set aside under another name.
    """
    for unfinished in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(unfinished)
    for checkpoint in reversed(checkpoints(folder)):
        if is_valid(checkpoint):
            return checkpoint
        warn(checkpoint)
        aside = checkpoint.with_name(_DAMAGED + checkpoint.name)
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders there are, oldest first, valid or not."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer steps done at a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix("step-"))


def is_valid(checkpoint: Path) -> bool:
    """Whether a checkpoint is complete and its files are what was written."""
    try:
        manifest = read_manifest(checkpoint)
        return manifest["step"] == step_of(checkpoint) and all(
            _sha256(checkpoint / name) == manifest["files"][name]["sha256"] for name in (LORA, STATE)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """The manifest of a valid checkpoint."""
    return read_json(checkpoint / MANIFEST)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The training state of a valid checkpoint, on the CPU."""
    return torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)


def checkpoint_at(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies, or would."""
    return folder / f"step-{step:06d}"


def prune(folder: Path, keep_last: int, best_step: int | None) -> None:
    """Remove all checkpoints but the newest ``keep_last`` and the one of ``best_step``."""
    for old in checkpoints(folder)[:-keep_last]:
        if step_of(old) != best_step:
            shutil.rmtree(old)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
