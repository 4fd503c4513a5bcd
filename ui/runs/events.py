"""The panel that tells what happened in a run, newest first."""

from __future__ import annotations

import html
import time
from typing import Any

import gradio as gr

from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown
from ui.runs.happenings import Happening


def build(board: RunsBoard) -> None:
    """Lay the list out, folded."""
    with gr.Accordion("What happened", open=False, elem_classes=["card", "as-text"]):
        events = gr.HTML("", padding=False, elem_id="run-events")

    def key(shown: Shown) -> Any:
        return board.desk.happenings(shown.run)[0]

    board.add(Panel("events", [events], key, lambda shown: [happenings_html(board.desk.happenings(shown.run)[1])]))


def happenings_html(happenings: tuple[Happening, ...]) -> str:
    """A list of sentences with time and step."""
    if not happenings:
        return '<p class="quiet">Nothing yet.</p>'
    return f'<ol class="happenings">{"".join(map(_line, happenings))}</ol>'


def _line(one: Happening) -> str:
    when = time.strftime("%d %b %H:%M:%S", time.localtime(one.time))
    return f'<li class="{one.kind}"><time>{when}</time><span>step {one.step}</span> <b>{html.escape(one.text)}</b></li>'
