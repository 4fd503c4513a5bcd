"""A trainer that is loaded before it is wanted: importing torch and the libraries of models is most of a start.

Whoever expects a start says so with ``note_expected``. While that is recent, the worker of the device keeps a process
that has imported everything and waits for its run on its standard input. Told one, it is that run's trainer as any
other: its own process and process group, its log, its signals and its exit code. It has not touched a GPU before.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import psutil

from trainer.processes import start_detached, trainer_command
from trainer.runs.settings import read_settings
from trainer.runs.store import Workspace

NOTE_EVERY_SECONDS = 30.0
ROOM_TO_START_BYTES = 2 << 30
ROOM_TO_STAY_BYTES = 1 << 30
"""Of memory that is free; a loaded trainer takes 0.4 GB."""


@dataclass(frozen=True)
class Order:
    """What a waiting trainer is told: the arguments of ``trainer resume``, and where its output goes."""

    arguments: list[str]
    log: str

    def write(self) -> bytes:
        """One line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @staticmethod
    def read(stream: TextIO) -> Order | None:
        """The order once it comes; None when whoever would give it has gone."""
        line = stream.readline()
        return Order(**json.loads(line)) if line.endswith("\n") else None


def note_expected(workspace: Workspace, device: str) -> bool:
    """Note that a run may be started on a device soon. False where that is known, or the settings want none loaded."""
    if read_settings(workspace).trainer_ready_minutes == 0 or _age_seconds(workspace, device) < NOTE_EVERY_SECONDS:
        return False
    workspace.locks_dir.mkdir(parents=True, exist_ok=True)
    _note(workspace, device).touch()
    return True


def is_expected(workspace: Workspace, device: str) -> bool:
    """Whether a start was expected on a device within the minutes that the settings say."""
    return _age_seconds(workspace, device) < 60 * read_settings(workspace).trainer_ready_minutes


class Spare:
    """The loaded trainer of one worker. At most one, and none after one that ended by itself."""

    def __init__(self, workspace: Workspace, environment: dict[str, str], log_path: Path) -> None:
        """``environment`` is what a trainer on the worker's device gets; ``log_path`` is for what it says before."""
        self._workspace = workspace
        self._environment = environment
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def keep(self) -> None:
        """See to it that a trainer is loaded, or on the way, where the memory allows it."""
        free_bytes = psutil.virtual_memory().available
        if self._process is not None and self._process.poll() is not None:
            self._process, self._ended = None, True
        if self._process is None and not self._ended and free_bytes >= ROOM_TO_START_BYTES:
            command = trainer_command("spare", "--workspace", str(self._workspace.dir))
            self._process = start_detached(command, self._log_path, env=self._environment, stdin=subprocess.PIPE)
        elif self._process is not None and free_bytes < ROOM_TO_STAY_BYTES:
            self.let_go()

    def let_go(self) -> None:
        """Have none any more."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            _close(process)

    def start(self, command: list[str], log_path: Path) -> subprocess.Popen[bytes] | None:
        """Have the loaded trainer do what a new process of this command would do; None where it cannot."""
        process, own = self._process, trainer_command("resume")
        if process is None or process.poll() is not None or command[: len(own)] != own:
            return None
        assert process.stdin is not None
        self._process = None
        try:
            process.stdin.write(Order(command[len(own) :], str(log_path)).write())
            process.stdin.flush()
        except OSError:  # it ended just now
            return None
        finally:
            _close(process)
        return process


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close a process's standard input; what could not be written to it is of no use any more."""
    assert process.stdin is not None
    try:
        process.stdin.close()
    except OSError:
        return


def _note(workspace: Workspace, device: str) -> Path:
    return workspace.locks_dir / f"expected-{device.replace(':', '-')}"


def _age_seconds(workspace: Workspace, device: str) -> float:
    try:
        return time.time() - _note(workspace, device).stat().st_mtime
    except FileNotFoundError:
        return float("inf")
