"""The warnings and errors of a run."""

from __future__ import annotations

import gradio as gr

from ui import run_html
from ui.runs.board import Panel, RunsBoard


def build(board: RunsBoard) -> None:
    """Lay the list out; it hides itself while it is empty."""
    notes = gr.HTML("", padding=False, elem_id="run-notes")
    board.add(Panel("notes", [notes], lambda shown: shown.view.notes, lambda shown: [run_html.notes(shown.view)]))
