"""``app.py`` as a process of its own: started on a free port, ended with all that works in its workspace."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil

from trainer.runs.settings import AppSettings, write_settings
from trainer.runs.store import Workspace

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 240  # on a busy machine; an app that ends is told at once
APP = (str(ROOT / "app.py"),)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_app(
    workspace: Path, port: int, options: Sequence[str] = (), program: Sequence[str] = APP
) -> subprocess.Popen[bytes]:
    """Start ``program``, which takes the options of ``app.py``, and return when its page answers.

    A workspace without settings gets such that load no trainer: that takes the machine seconds whenever a page is
    opened, for starts that most tests never make.
    """
    if not (workspace / "settings.json").exists():
        write_settings(Workspace(workspace), AppSettings(trainer_ready_minutes=0))
    command = [sys.executable, *program, "--port", str(port), "--workspace", str(workspace), "--no-browser", *options]
    with (workspace / "app.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        _wait_until_answering(process, port, workspace / "app.log")
    except RuntimeError:
        process.kill()
        raise
    return process


def end_app(process: subprocess.Popen[bytes], workspace: Path) -> None:
    """End the app, and trainers, workers and studios: they outlive the app on purpose, and must not outlive a test."""
    process.terminate()
    process.wait(timeout=20)
    for found in processes_of(workspace):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.kill()


def processes_of(folder: Path, command: str = "") -> list[psutil.Process]:
    """Processes whose arguments name something in a folder, all or those of one trainer command."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(str(folder) in word for word in words) and (not command or command in words):
            found.append(process)
    return found


def left_behind(app: subprocess.Popen[bytes], workspace: Path) -> list[list[str]]:
    """Processes of the workspace beside the app, the queue's worker, which leaves when there is nothing to do, and the
    one trainer that it may keep loaded.
    """
    here = {process.pid: process.info["cmdline"] for process in processes_of(workspace)}
    workers = {process.pid for process in processes_of(workspace, "worker")}
    loaded = [each.pid for each in processes_of(workspace, "spare") if _parent(each) in workers][:1]
    return [words for pid, words in here.items() if pid not in {app.pid, *workers, *loaded}]


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def _wait_until_answering(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"app.py ended with {process.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/gradio_api/startup-events", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"app.py did not answer in {START_SECONDS} s:\n{log.read_text()}")
