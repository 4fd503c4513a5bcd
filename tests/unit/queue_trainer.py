"""Stands in for ``trainer resume`` in tests of the queue: a process that only keeps run.json, as a trainer does.

It stays until the file ``hold`` is gone from its run folder, then ends as the run's name says.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from trainer.runs.store import Run, Workspace, this_process


def command(run: Run, workspace: Workspace) -> list[str]:
    """The process for a run, as ``trainer.runs.worker.work`` takes it."""
    return [sys.executable, str(Path(__file__)), str(run.dir)]


def _note(run: Run, what: str) -> None:
    with (run.workspace.dir / "order.txt").open("a") as order:
        order.write(f"{what} {run.read().name}\n")


def _main(run: Run) -> int:
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
    sys.exit(_main(Run(Path(sys.argv[1]))))
