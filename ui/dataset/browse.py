"""The grid of pictures, and the panel of the dataset's job."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.errors import UserError
from ui.context import AppContext
from ui.dataset.board import IN_ORDER, ONE_BY_ONE, Board, sent
from ui.dataset.desk import DatasetDesk, View
from ui.messages import tells_problems
from ui.wiring import LAST_COUNTS, TELLING


def actions(board: Board) -> None:
    """Lay out the row above the panels: what leads on, undo and redo."""
    with gr.Row(elem_classes=["actions"]):
        for part in (board.train_on, board.undo, board.redo, board.last, board.resolution):
            part.render()


def grid(board: Board) -> None:
    """Lay out the grid."""
    board.grid.render()


def wire(context: AppContext, desk: DatasetDesk, board: Board) -> None:
    """Wire the grid and the job panel."""

    @tells_problems
    def turn(view: View, event: gr.EventData) -> View:
        return desk.turn(view, sent(event, "page", "query", "asked")).view

    @tells_problems
    def pick(view: View, event: gr.EventData) -> View:
        return desk.pick(view, sent(event, "how", "start", "end", "asked")).view

    @tells_problems
    def train_at(view: View, resolution: Any) -> View:
        desk.memory.train_at(resolution)
        return desk.refresh(view).view if view.get("folder") else gr.skip()

    def refresh(view: View) -> list[Any]:
        try:
            return board.updates(desk.refresh(view))
        except UserError:  # nothing is open, or it is gone: not what somebody just asked for
            return board.unchanged()

    @tells_problems
    def cancel(event: gr.EventData) -> None:
        desk.cancel(str(sent(event, "id")["id"]))

    @tells_problems
    def open_result(event: gr.EventData) -> list[Any]:
        return board.updates(desk.open(str(sent(event, "folder")["folder"])))

    board.grid.turn(turn, board.grid, board.grid, **IN_ORDER)
    board.grid.pick(pick, board.grid, board.grid, **IN_ORDER)
    board.resolution.submit(train_at, [board.grid, board.resolution], board.grid, **IN_ORDER)
    board.resolution.blur(train_at, [board.grid, board.resolution], board.grid, **IN_ORDER)
    context.page.load(lambda: [desk.memory.resolution], outputs=[board.resolution])
    for part in (board.job, board.grid):
        part.refresh(refresh, board.grid, board.outputs, **ONE_BY_ONE, **LAST_COUNTS)
    board.job.open(open_result, None, board.outputs, **IN_ORDER)
    board.job.cancel(cancel, None, None, **TELLING)
    context.page.poll(board.job_updates, [board.folder, board.job_shown], [board.job, board.job_shown])
