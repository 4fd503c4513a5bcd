"""Stands in for ``trainer resume`` in tests of the queue: a process that only keeps run.json, as a trainer does.

It stays until the file ``hold`` is gone from its run folder, then ends as the run's name says. With ``spare`` as its
only argument it stands in for ``trainer spare``. What tests of the queue need besides is here too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from trainer.commands.resume import take_over
from trainer.commands.spare import wait_for_order
from trainer.config import Config
from trainer.errors import UserError
from trainer.runs.store import Run, Workspace, process_is_alive, this_process

ROOT = Path(__file__).resolve().parents[2]


class Quiet:
    """Events that nobody listens to."""

    def emit(self, kind: str, step: int = 0, **fields: object) -> None:
        """Nothing happens."""


def wait(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Until it is true; fails when that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def add(workspace: Workspace, name: str, *, hold: bool = False, device: str | None = None) -> Run:
    """A run that waits; with ``hold``, its training lasts until that file is gone."""
    run = workspace.create_run(Config(name=name), wanted_device=device)
    if hold:
        (run.dir / "hold").touch()
    return run


def worker_process(
    workspace: Workspace, idle_seconds: float = 0.2, *, device: str = "cpu", before: str = ""
) -> subprocess.Popen[bytes]:
    """A worker in a process of its own, with the tests' trainer. ``before`` is Python that runs first."""
    script = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, 'tests/unit')\n"
        "from queue_trainer import command; from trainer.runs import worker\n"
        "from trainer.runs.events import Events; from trainer.runs.store import Run, Workspace\n"
        f"{before}\n"
        f"worker.work(Workspace(Path(sys.argv[1])), {device!r}, Events(), idle_seconds={idle_seconds}, command=command)"
    )
    return subprocess.Popen([sys.executable, "-c", script, str(workspace.dir)], cwd=ROOT)


def loaded_in(workspace: Workspace) -> list[psutil.Process]:
    """The processes that are to be, or are, a workspace's loaded trainer; one that was told its run still counts."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "spare" in words and str(workspace.dir) in words and process_is_alive(process.pid, None):
            found.append(process)
    return found


def order(workspace: Workspace) -> list[str]:
    """``start`` and ``end`` of the trainings, as they happened."""
    path = workspace.dir / "order.txt"
    return path.read_text().splitlines() if path.exists() else []


def command(run: Run, workspace: Workspace) -> list[str]:
    """The process for a run, as ``trainer.runs.worker.work`` takes it."""
    return [sys.executable, str(Path(__file__)), str(run.dir)]


def _note(run: Run, what: str) -> None:
    with (run.workspace.dir / "order.txt").open("a") as file:
        file.write(f"{what} {run.read().name}{_device()}\n")


def _device() -> str:
    """The GPU that this process sees, where there are several."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return f" on {visible}" if visible else ""


def _main(run: Run) -> int:
    try:
        take_over(run)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    run.update(**this_process(), state="training")
    _note(run, "start")
    while (run.dir / "hold").exists():
        time.sleep(0.02)
    _note(run, "end")
    name = run.read().name
    if name.startswith("crash"):
        sys.stderr.write("out of luck\n")
        return 1
    run.update(state="failed" if name.startswith("fail") else "finished", ended=time.time())
    return 1 if name.startswith("fail") else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "spare":
        order = wait_for_order()
        arguments = order.arguments if order else sys.exit(0)
    sys.exit(_main(Run(Path(arguments[0]))))
