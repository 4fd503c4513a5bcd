"""Several runs beside each other, shown by a script: which ones is known in the browser alone."""

from __future__ import annotations

from trainer.runs.store import Run
from ui.runs.board import Panel, RunsBoard
from ui.runs.charts import CHART_SCRIPTS
from ui.runs.compared_evaluations import stamp_of
from ui.runs.desk import Overview
from ui.scripted import scripted

_STYLES = ("charts/charts", "wall/wall", "compare/compare")


def build(board: RunsBoard) -> None:
    """Lay the comparison out; it is hidden until two runs are ticked in the list."""
    comparison = scripted(
        "run-compare", css=_STYLES, js=[*CHART_SCRIPTS, "wall/large", "wall/viewer", "compare/compare"]
    )

    def version(overview: Overview) -> str:
        """Changes with the runs and with their evaluations."""
        runs_dir = board.desk.workspace.runs_dir
        return f"{overview.runs.version} {sum(stamp_of(Run(runs_dir / info.id)) for info in overview.runs.infos)}"

    board.add_overall(Panel("compare", [comparison], version, lambda all_: [{"version": version(all_)}]))
