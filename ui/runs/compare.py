"""Several runs beside each other, shown by a script: which ones is known in the browser alone."""

from __future__ import annotations

from ui.runs.board import Panel, RunsBoard
from ui.runs.charts import CHART_SCRIPTS
from ui.scripted import scripted

_STYLES = ("charts/charts", "wall/wall", "compare/compare")


def build(board: RunsBoard) -> None:
    """Lay the comparison out; it is hidden until two runs are ticked in the list."""
    comparison = scripted("run-compare", css=_STYLES, js=[*CHART_SCRIPTS, "wall/viewer", "compare/compare"])
    board.add_overall(
        Panel("compare", [comparison], lambda all_: all_.runs.version, lambda all_: [{"version": all_.runs.version}])
    )
