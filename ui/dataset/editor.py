"""The editor of one picture: its caption."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.errors import UserError
from ui.dataset.board import IN_ORDER, Board, sent
from ui.dataset.desk import DatasetDesk, View
from ui.messages import tells_problems


def wire(desk: DatasetDesk, board: Board) -> None:
    """Wire what the editor's scripts send."""

    @tells_problems
    def save(view: View, event: gr.EventData) -> list[Any]:
        change = sent(event, "name", "before", "text", "asked")
        if not isinstance(change["text"], str) or not isinstance(change["before"], str | None):
            raise UserError("dataset.caption", "The caption is not text.", "Reload the page.")
        view = {**view, "asked": change["asked"]}
        return board.updates(desk.save(view, str(change["name"]), change["before"], change["text"]))

    board.grid.save(save, board.grid, board.outputs, **IN_ORDER)
