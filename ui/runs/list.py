"""The list of runs: a click shows one."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui import run_html
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Overview
from ui.scripted import told_html
from ui.wiring import EVERY_TIME, QUIET


def build(board: RunsBoard) -> None:
    """Lay the list out, and have clicks select a run."""
    listing = told_html("run-list", js=["pick"])

    def picked(event: gr.EventData) -> str:
        return board.select(str(event._data["id"]))

    board.add_overall(Panel("list", [listing], _key, _updates))
    board.then_refresh(listing.pick(picked, None, board.chosen, **QUIET, **EVERY_TIME))


def _key(overview: Overview) -> Any:
    return overview.runs.version, overview.selected


def _updates(overview: Overview) -> list[Any]:
    return [run_html.run_list(overview.runs, overview.selected)]
