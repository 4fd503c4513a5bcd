"""Checkpoints: complete or not there. A folder counts only with a manifest whose hashes its files match."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from trainer.checkpoint_folders import LORA, MANIFEST, STATE, UNFINISHED, checkpoint_at, file_hash, is_valid
from trainer.files import fsync_folder, write_json
from trainer.versions import CHECKPOINT, TRAINING_STATE


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
    unfinished = folder / f"{UNFINISHED}{target.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        write_lora(unfinished / LORA)
        _write_state(unfinished / STATE, {"version": TRAINING_STATE.version, **state})
        files = {name: {"sha256": file_hash(unfinished / name)} for name in (LORA, STATE)}
        loss = validation_loss if validation_loss is not None and math.isfinite(validation_loss) else None
        told = {"step": step, "validation_loss": loss, "files": files, "merged": list(merged)}
        write_json(unfinished / MANIFEST, {"version": CHECKPOINT.version, **told})
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
        fsync_folder(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _write_state(path: Path, state: dict[str, Any]) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch speaks of positions in the file
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The training state of a valid checkpoint, on the CPU. Raises UserError for one of a newer program."""
    return TRAINING_STATE.read(torch.load(checkpoint / STATE, map_location="cpu", weights_only=True))
