"""Runs whose process ended without a word: with the machine, or killed. They can be put back all at once."""

from __future__ import annotations

import threading
from contextlib import suppress

from trainer.errors import UserError
from trainer.remote.hosts import hosts
from trainer.runs import queue
from trainer.runs.store import Run, Workspace
from trainer.runs.worker import ensure_workers, requeue


def interrupted_runs(workspace: Workspace, *, elsewhere: bool = False) -> list[Run]:
    """The runs that were interrupted and neither put back nor left so since, oldest first.

    ``elsewhere`` only those that go on on other machines, where nobody follows them here.
    """
    found = []
    for run in reversed(workspace.runs()):
        with suppress(UserError):
            info = run.status()
            if info.interrupted is not None and (info.host is not None or not elsewhere):
                found.append(run)
    return found


def put_back(workspace: Workspace) -> list[Run]:
    """Queue all interrupted runs again, before those that have not begun. Returns them, in that order."""
    return _put_first(interrupted_runs(workspace))


def leave(workspace: Workspace) -> None:
    """Have the interrupted runs stay as they are: failed like any other, each with its own Resume."""
    for run in interrupted_runs(workspace):
        with suppress(UserError):  # deleted meanwhile
            run.update(interrupted=None)


def follow_again(workspace: Workspace) -> list[Run]:
    """Queue the runs again that go on on other machines while the process here that followed them is gone.

    Returns them.
    """
    return _put_first(interrupted_runs(workspace, elsewhere=True)) if hosts(workspace) else []


def _put_first(found: list[Run]) -> list[Run]:
    for run in reversed(found):
        with suppress(UserError):  # somebody else has put it back, or taken it, meanwhile
            requeue(run)
            queue.move(run, "first")
    return found


def keep_workers(workspace: Workspace, every_seconds: float = 10.0) -> threading.Event:
    """Look again and again whether waiting runs have their worker, and whether runs on other machines are followed:
    nobody else starts a process anew that was killed.

    Returns at once; the looking ends with this process, or when the event it returns is set.
    """
    ended = threading.Event()

    def look() -> None:
        while True:
            with suppress(OSError):  # a full disk may have room the next time
                follow_again(workspace)
                ensure_workers(workspace)
            if ended.wait(every_seconds):
                return

    threading.Thread(target=look, name="queue keeper", daemon=True).start()
    return ended
