"""The log of a run."""

from __future__ import annotations

import gradio as gr

from ui import run_html
from ui.runs.board import Panel, RunsBoard


def build(board: RunsBoard) -> None:
    """Lay the log out, folded."""
    with gr.Accordion("Log", open=False, elem_classes=["card", "as-text"]):
        log = gr.HTML("", padding=False, elem_id="run-log")
    board.add(Panel("log", [log], lambda shown: shown.view.log, lambda shown: [run_html.log_text(shown.view)]))
