"""The queue of a workspace: which runs wait, in which order, for which device, and whether it is paused.

That a run waits, since when and for what is in its ``run.json``; ``WORKSPACE/queue.json`` holds what concerns the queue
as a whole. Reordering, pausing and a worker's taking of a run happen under one lock: after a change has been made, no
worker acts on what was before. Whoever needs a run's lock too takes it after this one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.remote.hosts import SSH, check_place, host_name
from trainer.runs.gpus import CPU, devices_of, gpus
from trainer.runs.store import Run, RunInfo, Workspace

Move = Literal["first", "earlier", "later", "last"]
MOVES: tuple[Move, ...] = get_args(Move)


class QueueState(BaseModel):
    """``queue.json``.

    Attributes:
        paused: whether waiting runs stay waiting; a run that is going goes on.
        order: ids of runs in the order somebody gave them. Waiting runs that are not among them come behind, oldest
            first; ids of runs that do not wait mean nothing.
    """

    model_config = ConfigDict(extra="ignore")

    paused: bool = False
    order: list[str] = []


def read_queue(workspace: Workspace) -> QueueState:
    """The queue's state; that of a new queue where there is no readable file."""
    try:
        return QueueState.model_validate(read_json(workspace.dir / "queue.json"))
    except (OSError, ValueError):
        return QueueState()


def queue_lock(workspace: Workspace) -> AbstractContextManager[None]:
    """Keep the queue as it is meanwhile."""
    return workspace.lock("queue")


def queued_runs(workspace: Workspace) -> list[Run]:
    """The runs that wait, next one first. Those whose folder cannot be read are left out."""
    infos = []
    for run in map(Run, workspace.run_folders()):
        with suppress(UserError):
            infos.append(run.read().model_copy(update={"id": run.id}))  # a copied folder tells another's id
    return [Run(workspace.runs_dir / info.id) for info in in_order(infos, read_queue(workspace).order)]


def in_order(infos: Iterable[RunInfo], order: Sequence[str]) -> list[RunInfo]:
    """Those of the runs that wait, next one first."""
    places = {run_id: place for place, run_id in enumerate(order)}
    waiting = [info for info in infos if info.state == "queued"]
    return sorted(waiting, key=lambda info: (places.get(info.id, len(places)), info.queued or info.created))


def suits(info: RunInfo, device: str) -> bool:
    """Whether a run may be trained on a device: the one it is queued for, else any GPU, else the CPU."""
    wanted = SSH + info.host if info.host is not None else info.wanted_device
    if wanted is not None:
        return devices_of(wanted)[0] == device
    return host_name(device) is None and (device != CPU if gpus() else device == CPU)


def pause(workspace: Workspace) -> None:
    """Have no further run start; one that is going goes on. It stays so until ``go_on``."""
    with queue_lock(workspace):
        _write(workspace, read_queue(workspace).model_copy(update={"paused": True}))


def go_on(workspace: Workspace) -> None:
    """End a pause. The workers have to be seen to by the caller: ``worker.ensure_workers``."""
    with queue_lock(workspace):
        _write(workspace, read_queue(workspace).model_copy(update={"paused": False}))


def move(run: Run, to: Move | int) -> int:
    """Give a waiting run another place, counted from 1; returns the place it has then.

    Raises UserError when it does not wait (any more).
    """
    workspace = run.workspace
    with queue_lock(workspace):
        ids = [waiting.id for waiting in queued_runs(workspace)]
        if run.id not in ids:
            raise _not_waiting(run)
        before = ids.index(run.id)
        ids.remove(run.id)
        places = {"first": 0, "earlier": before - 1, "later": before + 1, "last": len(ids)}
        place = min(max(to - 1 if isinstance(to, int) else places[to], 0), len(ids))
        ids.insert(place, run.id)
        _write(workspace, read_queue(workspace).model_copy(update={"order": ids}))
        return place + 1


def remove(run: Run) -> RunInfo:
    """Take a waiting run out of the queue: it is stopped then, and can be resumed or deleted.

    Raises UserError when it does not wait (any more): a run that has begun is never stopped by this.
    """
    with queue_lock(run.workspace), run.lock():
        if run.read().state != "queued":
            raise _not_waiting(run)
        return run.update_locked(state="stopped", ended=time.time())


def forget_place(run: Run) -> None:
    """Have the run come last when it is queued again."""
    with queue_lock(run.workspace):
        state = read_queue(run.workspace)
        if run.id in state.order:
            order = [run_id for run_id in state.order if run_id != run.id]
            _write(run.workspace, state.model_copy(update={"order": order}))


def set_device(run: Run, device: str | None) -> RunInfo:
    """Queue a waiting run for another device; None is any free GPU, or the CPU where there is none.

    Raises UserError when the run does not wait, or there is no such device. The workers have to be seen to by the
    caller: ``worker.ensure_workers``.
    """
    check_place(run.workspace, device)
    with queue_lock(run.workspace), run.lock():
        info = run.read()
        if info.state != "queued":
            raise _not_waiting(run)
        if info.host is not None:
            message = f"The run {run.id} goes on on {info.host}."
            raise UserError("run.elsewhere", message, "Stop it there before it goes on elsewhere.")
        return run.update_locked(wanted_device=device)


def _not_waiting(run: Run) -> UserError:
    state = run.read().state
    return UserError(
        "queue.not_waiting", f"The run {run.id} is {state}, not waiting.", "Only runs that wait have a place."
    )


def _write(workspace: Workspace, state: QueueState) -> None:
    write_json(workspace.dir / "queue.json", state.model_dump())
