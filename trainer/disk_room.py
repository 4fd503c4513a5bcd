"""Whether the disk of a run has room for what it is going to write: asked before the first step, and on the way.

The plan tells it before a start on the page; this tells it of every run, by what there is at its own start: caches are
filled by then, and what a resumed run has written already takes no more room.
"""

from __future__ import annotations

from pathlib import Path

from trainer.checkpoint_folders import checkpoints
from trainer.config import Config
from trainer.errors import UserError
from trainer.estimates import checkpoint_bytes, lora_file_bytes, preview_bytes
from trainer.files import size_bytes
from trainer.plan_disk import LEFT_BYTES, free_disk_bytes, same_disk
from trainer.runs.store import Run, Workspace
from trainer.session import Session
from trainer.single_file.cache import cache_dir

_NAMED = 3


class DiskRoom:
    """Watches the disk of one run."""

    def __init__(self, session: Session, config: Config, weights: int) -> None:
        """``weights``: of the LoRA."""
        self._session = session
        self._config = config
        self._run = session.run
        self._checkpoint_bytes = checkpoint_bytes(config, weights)
        self._lora_bytes = lora_file_bytes(config, weights)
        self._told = False

    def check(self, previews: int) -> None:
        """Warn where the disk will be full before the end; ``previews``: how often all prompts are still drawn.

        Raises UserError where not even one checkpoint and the finished LoRA fit.
        """
        free, written = free_disk_bytes(self._run.dir), size_bytes(self._run.checkpoints_dir)
        least = self._checkpoint_bytes + self._lora_bytes - written
        if free < least:
            message = f"output: a checkpoint and the finished LoRA take {_size(least)}; {self._free_words(free)}."
            raise UserError("disk.no_room", message, f"Free some space, then resume the run. {self._what_lies_there()}")
        kept = self._config.output.keep_last + self._config.keeps_best
        most = (kept + 1) * self._checkpoint_bytes - written  # the new one is there before the oldest goes
        needed = max(most, 0) + self._lora_bytes + preview_bytes(self._config, previews)
        if free < needed + LEFT_BYTES:
            fewer = ", or lower output.keep_last" if self._config.output.keep_last > 1 else ""
            message = f"The run is going to write about {_size(needed)}; {self._free_words(free)}."
            self._warn("disk.too_little", message, f"Free some space{fewer}.")

    def look(self) -> None:
        """Before a checkpoint: warn once when it is one of the last that fit."""
        saved = checkpoints(self._run.checkpoints_dir)
        one = size_bytes(saved[-1]) if saved else self._checkpoint_bytes
        free = free_disk_bytes(self._run.dir)
        if free < 2 * one + self._lora_bytes + LEFT_BYTES:
            message = f"The disk is nearly full: a checkpoint takes {_size(one)}; {self._free_words(free)}."
            self._warn("disk.low", message, "Free some space.")

    def _warn(self, code: str, message: str, hint: str) -> None:
        if not self._told:
            self._told = True
            later = "When it is full, checkpoints on the way are left out, and at the end saving waits for room."
            self._session.warn(code, message, f"{hint} {later} {self._what_lies_there()}")

    def _free_words(self, free: int) -> str:
        return f"{_size(free)} are free on the disk of {self._run.dir}"

    def _what_lies_there(self) -> str:
        """``There are 12.5 GB in runs, 3.1 GB in cache.``: the largest of what this program keeps on the same disk."""
        sizes = {folder.name: size_bytes(folder) for folder in _folders(self._run) if same_disk(folder, self._run.dir)}
        largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:_NAMED]
        return f"There are {', '.join(f'{_size(sizes[name])} in {name}' for name in largest)}." if largest else ""


def _folders(run: Run) -> list[Path]:
    """Where this program keeps what may be large."""
    workspace: Workspace = run.workspace
    inside = [path for path in workspace.dir.iterdir() if path.is_dir()] if run.dir.parent == workspace.runs_dir else []
    return [*inside, *([cache_dir()] if cache_dir().is_dir() else [])]


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{max(size, 0) / 1e6:.1f} MB"
