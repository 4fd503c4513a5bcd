"""The preview pictures of a run: prompts by steps."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.runs.store import Workspace
from ui import run_html
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown
from ui.theme import asset


def build(board: RunsBoard) -> None:
    """Lay the wall of pictures out."""
    gr.HTML("<h3>Previews</h3>", padding=False)
    wall = gr.HTML("", padding=False, elem_id="sample-wall", js_on_load=asset("pictures.js"))
    workspace = board.desk.workspace
    board.add(Panel("previews", [wall], lambda shown: shown.view.wall, lambda shown: _updates(workspace, shown)))


def _updates(workspace: Workspace, shown: Shown) -> list[Any]:
    return [run_html.sample_wall(workspace, shown.view)]
