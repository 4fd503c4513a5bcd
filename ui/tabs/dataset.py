"""The Dataset tab: open pictures, look at them, caption them, check them, train on them."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ui.context import AppContext
from ui.dataset import browse, captions, check, editor, edits, history, source, tags, transfer
from ui.dataset.board import Board
from ui.dataset.desk import DatasetDesk

PANELS = (captions, tags, edits, check, transfer, history)
"""What stands between the row of actions and the grid, each with ``build(desk, board)``."""


@dataclass(frozen=True)
class DatasetTab:
    """What other parts of the page use: the open dataset's folder (empty for none) and the button that leads on."""

    folder: gr.HTML
    train_on: gr.Button


def build(context: AppContext) -> DatasetTab:
    """Lay the tab out and wire it."""
    desk = DatasetDesk(context)
    desk.thumbnails.add_routes(context.page)
    board = Board(desk)
    source.build(context, desk, board)
    board.job.render()
    board.tools.render()
    with board.tools:
        browse.actions(board)
        for panel in PANELS:
            panel.build(desk, board)
    browse.grid(board)
    browse.wire(context, desk, board)
    editor.wire(context, desk, board)
    history.follow(context, desk, board)
    return DatasetTab(board.folder, board.train_on)
