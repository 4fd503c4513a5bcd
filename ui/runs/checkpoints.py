"""The checkpoints of a run."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui import run_html
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown


def build(board: RunsBoard) -> None:
    """Lay the list out, folded."""
    with gr.Accordion("Checkpoints", open=False, elem_classes=["card", "as-text"]):
        checkpoints = gr.HTML("", padding=False, elem_id="run-checkpoints")
    board.add(Panel("checkpoints", [checkpoints], lambda shown: shown.view.checkpoints, _updates))


def _updates(shown: Shown) -> list[Any]:
    return [run_html.checkpoints(shown.view)]
