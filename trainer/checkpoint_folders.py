"""Checkpoint folders without their content: what lies where, which are whole, which to keep. Never torch."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.files import read_json
from trainer.versions import CHECKPOINT

LORA, STATE, MANIFEST = "lora.safetensors", "state.pt", "manifest.json"
UNFINISHED = ".unfinished-"

_NAME = re.compile(r"step-(\d{6,})")
_DAMAGED = "damaged-"


def newest_checkpoint(folder: Path, warn: Callable[[Path], None]) -> Path | None:
    """The valid checkpoint of the highest step, or None.

    Unfinished ones are removed. Damaged ones are told to ``warn`` and set aside under another name. Raises UserError
    for one of a newer program.
    """
    for unfinished in folder.glob(f"{UNFINISHED}*"):
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
    """Whether a checkpoint is complete and its files are what was written.

    Raises UserError for one of a newer program, which is not damaged.
    """
    try:
        manifest = read_manifest(checkpoint)
        return manifest["step"] == step_of(checkpoint) and all(
            file_hash(checkpoint / name) == manifest["files"][name]["sha256"] for name in (LORA, STATE)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """The manifest of a valid checkpoint. Raises UserError for one of a newer program."""
    return CHECKPOINT.read(read_json(checkpoint / MANIFEST))


def checkpoint_at(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies, or would."""
    return folder / f"step-{step:06d}"


def prune(folder: Path, keep_last: int, best_step: int | None) -> None:
    """Remove all checkpoints but the newest ``keep_last`` and the one of ``best_step``."""
    for old in checkpoints(folder)[:-keep_last]:
        if step_of(old) != best_step:
            shutil.rmtree(old)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
