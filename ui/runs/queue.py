"""The queue panel: what is going, what waits, and what can be done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.runs import interrupted, queue
from trainer.runs.store import ALIVE, RunInfo, Workspace
from trainer.runs.worker import ensure_workers
from ui.messages import tells_problems
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Overview
from ui.runs.paces import Paces
from ui.runs.waiting import queue_view
from ui.scripted import scripted
from ui.wiring import EVERY_TIME, QUIET, TELLING


def build(board: RunsBoard) -> None:
    """Lay the panel out, have it follow the files, and do what its buttons say."""
    workspace = board.desk.workspace
    panel = scripted("run-queue", css=["runs/queue"], js=["dataset/dom", "runs/queue"])
    paces = Paces(workspace)

    def seconds_left(info: RunInfo, overview: Overview) -> float | None:
        told = board.desk.view_of(info.id).seconds_left if info.state in ALIVE else None
        return paces.seconds_left(info, overview.runs.infos) if told is None else told

    def shown(overview: Overview) -> dict[str, Any]:
        """What the script draws: nothing until there is a run."""
        if not overview.runs.infos:
            return {}
        return asdict(queue_view(overview.runs, lambda info: seconds_left(info, overview)))

    @tells_problems
    def ordered(event: gr.EventData) -> None:
        obey(workspace, event._data or {})

    def picked(event: gr.EventData) -> str:
        return board.select(str(event._data["id"]))

    board.add_overall(Panel("queue", [panel], shown, lambda overview: [shown(overview)]))
    board.then_refresh(panel.order(ordered, None, None, **TELLING, **EVERY_TIME))
    board.then_refresh(panel.pick(picked, None, board.chosen, **QUIET, **EVERY_TIME))


def obey(workspace: Workspace, order: Mapping[str, Any]) -> None:
    """Do what a button of the panel says: ``act``, and with most the ``run``. Raises UserError."""
    act = order.get("act")
    if act == "pause":
        queue.pause(workspace)
    elif act == "go_on":
        queue.go_on(workspace)
        ensure_workers(workspace)
    elif act == "put_back":
        interrupted.put_back(workspace)
    elif act == "leave":
        interrupted.leave(workspace)
    elif act in ("move", "device", "remove"):
        _obey_about(workspace, str(act), order)
    else:
        raise _not_understood()


def _obey_about(workspace: Workspace, act: str, order: Mapping[str, Any]) -> None:
    run = workspace.run(str(order.get("run")))
    if act == "move":
        to = order.get("to")
        if to not in queue.MOVES and type(to) is not int:
            raise _not_understood()
        queue.move(run, to)
    elif act == "device":
        queue.set_device(run, str(order.get("device") or "") or None)
        ensure_workers(workspace)
    else:
        queue.remove(run)


def _not_understood() -> UserError:
    return UserError("queue.order", "The page and the program do not fit together.", "Reload the page.")
