"""Undo and redo, the list of edits, and edits from elsewhere: another window or a job on the same dataset."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.errors import UserError
from ui.context import AppContext
from ui.dataset.board import IN_ORDER, ONE_BY_ONE, Board, custom, sent, tell
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.fields import folded
from ui.messages import inform, tells_problems
from ui.wiring import LAST_COUNTS


def build(desk: DatasetDesk, board: Board) -> None:
    """Lay the list of edits out, and wire it with undo and redo."""
    with folded("History of changes", "dataset-past"):
        board.history.render()

    @tells_problems
    def undo(view: View, seen: str) -> list[Any]:
        shown, outcome = desk.undo(view, seen)
        tell("Taken back", outcome)
        return board.updates(shown)

    @tells_problems
    def redo(view: View, seen: str) -> list[Any]:
        shown, outcome = desk.redo(view, seen)
        tell("Done again", outcome)
        return board.updates(shown)

    @tells_problems
    def go(view: View, seen: str, event: gr.EventData) -> list[Any]:
        number = sent(event, "number")["number"]
        if not isinstance(number, int):
            raise UserError("edit.number", "The page names no change of the list.", "Reload the page.")
        shown, outcomes = desk.go_to(view, number, seen)
        tell("Taken back or done again", *outcomes)
        return board.updates(shown)

    inputs = [board.grid, board.version]
    board.undo.click(undo, inputs, board.outputs, **IN_ORDER)
    board.redo.click(redo, inputs, board.outputs, **IN_ORDER)
    board.history.go(go, inputs, board.outputs, **IN_ORDER)


def follow(context: AppContext, desk: DatasetDesk, board: Board) -> None:
    """Have an open page show what others do to its dataset, within a few seconds."""
    pulse = custom("dataset-pulse", css=(), js=("pulse",))
    pulse.render()

    def look(folder: str | None, version: str | None) -> list[Any] | None:
        try:
            latest = desk.version(folder or "")
        except UserError:  # the folder is no longer open to the page, which the next click tells
            return None
        return [latest] if latest != (version or "") else None

    def refresh(view: View, seen: str) -> list[Any]:
        try:
            shown, told = desk.refresh(view), desk.elsewhere(view)
        except UserError:  # it is gone: not what somebody just asked for
            return board.unchanged()
        if told and shown.version != seen:
            inform(f"This dataset was changed in another window. {told}", seconds=8)
        return board.updates(shown)

    context.page.poll(look, [board.folder, board.version], [pulse])
    pulse.refresh(refresh, [board.grid, board.version], board.outputs, **ONE_BY_ONE, **LAST_COUNTS)
