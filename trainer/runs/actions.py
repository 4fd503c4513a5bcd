"""What a person can ask of a run, whatever state it is in: used by the page and by ``trainer runs``."""

from __future__ import annotations

import time
from typing import get_args

from trainer.errors import UserError
from trainer.runs import control
from trainer.runs.control import Request
from trainer.runs.store import ALIVE, ENDED, Run, RunInfo
from trainer.runs.worker import ensure_workers, requeue


def ask(run: Run, request: Request) -> RunInfo:
    """Ask a running trainer for something, ``resume`` and ``stop`` also for runs that are not running.

    Raises UserError when it makes no sense in the run's state.
    """
    if request not in get_args(Request):
        raise UserError(
            "run.request", f"{request!r} cannot be asked of a run.", "Requests: " + ", ".join(get_args(Request))
        )
    if request == "stop":
        return stop(run)
    if request == "resume":
        return resume(run)
    info = run.status()
    if info.state not in ALIVE:
        raise UserError("run.not_running", f"The run {run.id} is {info.state}, not running.", "Resume it first.")
    control.ask(run.control_dir, request)
    return info


def stop(run: Run) -> RunInfo:
    """Take a queued run out of the queue, or ask a running one to save and end."""
    with run.lock():  # a worker takes a queued run under this lock
        info = run.status_locked()
        if info.state == "queued":
            return run.update_locked(state="stopped", ended=time.time())
    if info.state in ENDED:
        raise UserError("run.ended", f"The run {run.id} is {info.state} already.", "There is nothing to stop.")
    control.ask(run.control_dir, "stop")
    return info


def resume(run: Run) -> RunInfo:
    """Let a paused run go on, queue a stopped or failed one again, see to it that a queued one gets its worker."""
    info = run.status()
    if info.state == "paused":
        control.ask(run.control_dir, "resume")
    elif info.state in ("stopped", "failed"):
        requeue(run)
    elif info.state == "queued":
        ensure_workers(run.workspace)
    elif info.state == "finished":
        raise UserError("run.ended", f"The run {run.id} is finished.", "To go on, extend it: give it more steps.")
    else:
        raise UserError("run.alive", f"The run {run.id} is {info.state} already.", "There is nothing to resume.")
    return run.read()


def delete(run: Run) -> None:
    """Delete a run that is not running, folder and all. Raises UserError while it is."""
    with run.lock():
        info = run.status_locked()
        if info.state == "queued":
            run.update_locked(state="stopped", ended=time.time())
    run.workspace.delete_run(run)
