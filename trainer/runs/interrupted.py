"""Runs whose process ended without a word: with the machine, or killed. They can be put back all at once."""

from __future__ import annotations

from contextlib import suppress

from trainer.errors import UserError
from trainer.runs import queue
from trainer.runs.store import Run, Workspace
from trainer.runs.worker import requeue


def interrupted_runs(workspace: Workspace) -> list[Run]:
    """The runs that were interrupted and neither put back nor left so since, oldest first."""
    found = []
    for run in reversed(workspace.runs()):
        with suppress(UserError):
            if run.status().interrupted is not None:
                found.append(run)
    return found


def put_back(workspace: Workspace) -> list[Run]:
    """Queue all interrupted runs again, before those that have not begun. Returns them, in that order."""
    found = interrupted_runs(workspace)
    for run in reversed(found):
        with suppress(UserError):  # somebody else has put it back, or taken it, meanwhile
            requeue(run)
            queue.move(run, "first")
    return found


def leave(workspace: Workspace) -> None:
    """Have the interrupted runs stay as they are: failed like any other, each with its own Resume."""
    for run in interrupted_runs(workspace):
        with suppress(UserError):  # deleted meanwhile
            run.update(interrupted=None)
