"""Turns on a device: one job at a time, whichever workspace, terminal or program part it belongs to.

Both locks end with the process that holds them, however it ends.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.runs.store import Workspace

_PATIENCE_SECONDS = 0.5  # looking whether a device is free takes it for a moment: that is no other job


class Turn:
    """The right to compute on a device, and the wish for it.

    Who waits for a turn says so by a second lock, so that a job that could let go, such as a loaded picture model that
    nobody uses now, does.
    """

    def __init__(self, path: Path) -> None:
        self._held = FileLock(path, mode=0o666)
        self._wish = FileLock(path.with_suffix(".wanted"), mode=0o666)

    def take(self, patience_seconds: float = _PATIENCE_SECONDS) -> bool:
        """Take the device unless another process has it; then go on asking for it until it is taken or given up."""
        try:
            self._held.acquire(timeout=patience_seconds)
        except Timeout:
            self._ask()
            return False
        self._wish.release()
        return True

    def give_back(self) -> None:
        """Let others have the device, and ask for it no longer."""
        self._held.release(force=True)
        self._wish.release(force=True)

    @property
    def held(self) -> bool:
        """Whether this object has the device."""
        return self._held.is_locked

    @property
    def wanted(self) -> bool:
        """Whether another process asks for the device."""
        if self._wish.is_locked:
            return False
        try:
            with self._wish.acquire(timeout=0):
                return False
        except Timeout:
            return True

    def _ask(self) -> None:
        if self._wish.is_locked:
            return
        try:
            self._wish.acquire(timeout=0)
        except Timeout:
            return  # somebody asks already: that is enough


def gpu_turn(uuid: str) -> Turn:
    """Turns on a GPU are of the whole machine. The UUID may be with or without ``GPU-`` in front."""
    return Turn(Path(tempfile.gettempdir()) / f"lora-atelier-{uuid.removeprefix('GPU-')}.lock")


def cpu_turn(workspace: Workspace) -> Turn:
    """Turns on the CPU are of the workspace: runs of two workspaces only slow each other down."""
    workspace.locks_dir.mkdir(parents=True, exist_ok=True)
    return Turn(workspace.locks_dir / "device-cpu.lock")
