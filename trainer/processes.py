"""Processes that outlive the one that starts them, and how to end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent


def ending_signals() -> list[signal.Signals]:
    """The signals by which this process is asked to end: a terminal that is closed sends SIGHUP.

    Those that it was told to ignore are left out, as ``nohup`` does it.
    """
    asked = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if sys.platform != "win32" else [])]
    return [number for number in asked if signal.getsignal(number) != signal.SIG_IGN]


def trainer_command(*arguments: str) -> list[str]:
    """The argument list that runs a trainer command with this very Python."""
    return [sys.executable, "-m", "trainer", *arguments]


def start_detached(
    command: list[str], log_path: Path, env: dict[str, str] | None = None, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output appended to a log.

    It survives its parent, the terminal and Ctrl+C. While the parent lives, the process is reaped as soon as it ends,
    so that it never stays behind as a zombie.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    windows_flags = 0x00000200 | 0x08000000 if os.name == "nt" else 0  # new process group, no console window
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=stdin,
            stdout=log,
            stderr=log,
            start_new_session=os.name != "nt",
            creationflags=windows_flags,
            close_fds=True,
        )
    threading.Thread(target=process.wait, name=f"reap {process.pid}", daemon=True).start()
    return process


def started_at(pid: int) -> float | None:
    """When a process started (Unix seconds), to know it from a later one with the same id; None when it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def start_mark(pid: int) -> int | None:
    """A number by which a process is known from a later one with the same id; None when it is gone.

    On Linux the clock ticks from the machine's start to the process's: a time would change with the machine's clock.
    """
    if sys.platform == "linux":
        try:
            state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            return None
        return None if state in "ZX" else int(numbers[18])
    started = started_at(pid)
    return None if started is None else round(started)


def process_facts(pid: int) -> dict[str, Any]:
    """What is kept of a process, to know later whether it still runs: ``pid``, ``pid_started`` and ``pid_mark``."""
    return {"pid": pid, "pid_started": started_at(pid), "pid_mark": start_mark(pid)}


def signal_group(pid: int, *, kill: bool = False) -> None:
    """Ask the process group led by ``pid`` to end (SIGTERM), or end it (SIGKILL). Gone already is fine."""
    if os.name == "nt":
        _end_tree(pid)
        return
    try:
        os.killpg(pid, signal.SIGKILL if kill else signal.SIGTERM)
    except ProcessLookupError:
        return


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    return start_mark(pid) is not None


def launchers() -> list[int]:
    """The processes above this one, the nearest first."""
    return [process.pid for process in psutil.Process().parents()]


def _end_tree(pid: int) -> None:
    """Windows has no process groups to signal: end the children and the process itself."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    for child in [*process.children(recursive=True), process]:
        child.terminate()
