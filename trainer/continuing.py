"""What a run goes on from: its newest checkpoint, and the LoRA files that it was begun on top of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint_folders import LORA, newest_checkpoint, read_manifest
from trainer.config import LoraSettings, MergedLora
from trainer.errors import Problem, UserError
from trainer.session import Session

FIELD = "lora.merge_before_training"


@dataclass(frozen=True)
class Continuation:
    """How a run goes on.

    Attributes:
        checkpoint: the newest valid one; None for a run that begins.
        merged: ratio and hash of each LoRA that is merged before training, for the manifests of further checkpoints.
    """

    checkpoint: Path | None
    merged: list[dict[str, Any]]

    @property
    def lora(self) -> Path | None:
        """The checkpoint's LoRA: adapters take its form, and need no file to start from."""
        return None if self.checkpoint is None else self.checkpoint / LORA


def continuation_of(session: Session, settings: LoraSettings) -> Continuation:
    """Find out how a run goes on.

    Raises UserError, with every problem, when a LoRA that the checkpoint's training is on top of is not what it was:
    what was learned would be used with another model. Files that cannot be read are told when they are merged.
    """

    merged = [_fingerprint(lora) for lora in settings.merge_before_training]
    checkpoint = newest_of(session)
    before = None if checkpoint is None else read_manifest(checkpoint).get("merged")
    if before is not None:  # those of older versions do not know
        problems = list(_changes(before, merged, settings.merge_before_training))
        if problems:
            raise UserError.many(problems)
    return Continuation(checkpoint, merged)


def newest_of(session: Session) -> Path | None:
    """The run's newest valid checkpoint, or None; damaged ones are told. Raises UserError for a newer program's."""

    def tell_damaged(checkpoint: Path) -> None:
        hint = "The run goes on from the one before."
        session.warn("checkpoint.damaged", f"The checkpoint {checkpoint.name} is damaged.", hint)

    return newest_checkpoint(session.run.checkpoints_dir, tell_damaged)


def _fingerprint(lora: MergedLora) -> dict[str, Any]:
    try:
        with Path(lora.path).expanduser().open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return {"ratio": lora.ratio, "sha256": None}
    return {"ratio": lora.ratio, "sha256": digest.hexdigest()}


def _changes(before: list[dict[str, Any]], now: list[dict[str, Any]], loras: list[MergedLora]) -> Iterator[Problem]:
    """A file may lie elsewhere now; its content and its ratio must be the same."""
    hint = "Undo the change, or start a new run with it."
    if len(before) != len(now):
        message = f"{FIELD}: the run was begun with {len(before)} files, and the config has {len(now)}."
        yield Problem("checkpoint.merged", message, hint, FIELD)
        return
    for number, (old, new, lora) in enumerate(zip(before, now, loras, strict=True)):
        name = f"{FIELD}.{number}"
        if new["sha256"] is not None and new["sha256"] != old["sha256"]:
            message = f"{name}.path: {lora.path} is not the file that the run was begun with."
            yield Problem("checkpoint.merged", message, "Put that file back, or start a new run.", f"{name}.path")
        if new["ratio"] != old["ratio"]:
            message = f"{name}.ratio: the run was begun with {old['ratio']:g}, now it is {new['ratio']:g}."
            yield Problem("checkpoint.merged", message, hint, f"{name}.ratio")
