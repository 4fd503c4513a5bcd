"""The curves of a run, drawn by a script that fetches them itself: zooming and smoothing never reach Gradio."""

from __future__ import annotations

from typing import Any

from trainer.runs.store import ALIVE
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown
from ui.scripted import scripted

CHART_SCRIPTS = (
    "dataset/dom",
    "charts/scale",
    "charts/plot",
    "charts/figures",
    "charts/pointer",
    "charts/export",
    "charts/panel",
)


def build(board: RunsBoard) -> None:
    """Lay the curves out."""
    charts = scripted("run-charts", css=["charts/charts"], js=[*CHART_SCRIPTS, "charts/main"])
    board.add(Panel("charts", [charts], _key, _updates))


def _key(shown: Shown) -> Any:
    return shown.view.curves_version, _waiting(shown)


def _updates(shown: Shown) -> list[Any]:
    info = shown.view.info
    run = {"id": info.id, "name": info.name}
    return [{"run": run, "version": shown.view.curves_version, "waiting": _waiting(shown)}]


def _waiting(shown: Shown) -> str:
    """What stands in place of a curve."""
    coming = shown.view.info.state in (*ALIVE, "queued")
    return "The curve begins with the second step." if coming else "No steps done."
