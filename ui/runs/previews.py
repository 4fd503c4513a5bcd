"""The preview pictures of a run, prompts by steps, shown by a script that fetches them itself."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown
from ui.scripted import scripted

NONE_YET = "No previews yet. They appear as the run makes them; Sample now asks for some."


def build(board: RunsBoard) -> None:
    """Lay the wall of pictures out."""
    gr.HTML("<h3>Previews</h3>", padding=False)
    wall = scripted("sample-wall", css=["wall/wall"], js=["dataset/dom", "wall/large", "wall/viewer", "wall/wall"])
    board.add(Panel("previews", [wall], lambda shown: shown.view.wall_version, _updates))


def _updates(shown: Shown) -> list[Any]:
    return [{"run": shown.run.id, "version": shown.view.wall_version, "waiting": NONE_YET}]
