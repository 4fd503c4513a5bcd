"""The curves of a run; dragging across one looks closer."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui import run_html
from ui.runs.board import QUIET, Panel, RunsBoard
from ui.runs.desk import Shown
from ui.theme import asset


def build(board: RunsBoard) -> None:
    """Lay the curves out. The stretch of steps that is looked at goes when another run is shown."""
    zoom = gr.Textbox("", visible=False)
    charts = gr.HTML("", padding=False, elem_id="run-charts", js_on_load=asset("charts.js"))
    board.add(Panel("charts", [charts], _key, _updates, [zoom]))
    board.then_refresh(charts.zoom(_zoomed, board.selected, zoom, **QUIET))


def _key(shown: Shown, zoom: str) -> Any:
    return shown.view.version, _stretch(shown, zoom)


def _updates(shown: Shown, zoom: str) -> list[Any]:
    return [run_html.charts(shown.reader, shown.view, *_stretch(shown, zoom))]


def _zoomed(run_id: str, event: gr.EventData) -> str:
    first, last = event._data.get("first"), event._data.get("last")
    return f"{int(first)},{int(last)},{run_id}" if first is not None and last is not None else ""


def _stretch(shown: Shown, zoom: str) -> tuple[int | None, int | None]:
    """First and last step that are looked at: those chosen while this run was shown, else all."""
    first, last, run_id = zoom.split(",", 2) if zoom else ("", "", "")
    return (int(first), int(last)) if run_id == shown.run.id else (None, None)
