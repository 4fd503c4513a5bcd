"""The head of a run: its name, state, how far it is and how fast."""

from __future__ import annotations

from ui import run_html
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown
from ui.scripted import told_html


def build(board: RunsBoard) -> None:
    """Lay the head out."""
    head = told_html("run-head")
    board.add(Panel("head", [head], _told, lambda shown: [_told(shown)]))


def _told(shown: Shown) -> str:
    return run_html.head_line(shown.view)
