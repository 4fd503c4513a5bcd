"""Trainer commands in processes of their own that start at once.

Nearly all of a short command's time goes into importing torch. Where a test is about a process and its signals, but not
about how the interpreter starts, the process is forked off a server that has imported everything before.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FORKING = multiprocessing.get_context("forkserver")
_STARTING = threading.Lock()
_FORKING.set_forkserver_preload(["trainer.recipe", "trainer.generate", "tests.loaded_before"])


@dataclass(frozen=True)
class Command:
    """A command under way, to be used like a ``subprocess.Popen`` with both outputs captured as text."""

    process: BaseProcess
    outputs: tuple[Path, Path]

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """As a user's ``kill`` does."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 300) -> int:
        """The exit code, once there is one."""
        self.process.join(timeout)
        code = self.poll()
        assert code is not None, f"it still runs after {timeout} s"
        return code

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it wrote on stdout and stderr, once it has ended."""
        self.wait(timeout)
        out, err = (path.read_text(encoding="utf-8") for path in self.outputs)
        return out, err


def start(*arguments: str, first: Callable[[], None] | None = None, **environment: str) -> Command:
    """Start ``python -m trainer`` with these arguments, and with these variables besides the environment's own.

    ``first`` is called in the process before the command.
    """
    folder = Path(tempfile.mkdtemp(prefix="command-", dir=_all_outputs()))
    outputs = (folder / "stdout", folder / "stderr")
    _ensure_server()
    process = _FORKING.Process(target=_command, args=(arguments, outputs, environment, first), daemon=True)
    process.start()
    return Command(process, outputs)


@cache
def _all_outputs() -> Path:
    """Where commands write, as long as the tests run."""
    folder = Path(tempfile.mkdtemp(prefix="commands-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _ensure_server() -> None:
    """Have it find our packages: it looks along PYTHONPATH only. One thread at a time, or one would keep another's."""
    with _STARTING:
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(ROOT)
        try:
            ensure_running()
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


def _command(
    arguments: tuple[str, ...],
    outputs: tuple[Path, Path],
    environment: dict[str, str],
    first: Callable[[], None] | None,
) -> None:
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal: what starts the tests may ignore both
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    from trainer.__main__ import main

    if first is not None:
        first()
    sys.exit(main(list(arguments)))
