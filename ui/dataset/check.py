"""Looking a dataset over before training: the doctor, and its findings with their pictures."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui.dataset.board import IN_ORDER, Board, sent
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.fields import folded
from ui.messages import tells_problems


def build(desk: DatasetDesk, board: Board) -> None:
    """Lay the panel out and wire it."""
    with folded("Check the pictures", "dataset-check"):
        with gr.Row(elem_classes=["actions"]):
            start = gr.Button("Check", elem_id="check-start", elem_classes=["fit"])
        board.findings.render()

    @tells_problems
    def show(view: View, event: gr.EventData) -> list[Any]:
        return board.updates(desk.turn(view, {"query": {"show": f"finding:{sent(event, 'finding')['finding']}"}}))

    desk.tells("dataset", report)
    board.start(start, lambda view, resolution: order(desk, view, resolution), [board.resolution])
    board.findings.show(show, board.grid, board.outputs, **IN_ORDER)


def order(desk: DatasetDesk, view: View, resolution: float | None) -> None:
    """Start the doctor on the open folder. Raises UserError for a resolution out of range, or while a job runs."""
    desk.train_at(resolution)
    options = [f"--resolution={desk.resolution()}", f"--workspace={desk.workspace.dir}"]
    desk.start(view, ["dataset"], "Check of", options)


def report(result: dict[str, Any]) -> str:
    """What the doctor's job answered, in a sentence."""
    count = len(result["findings"])
    return f"{result['pictures']} pictures looked at: {count or 'no'} {'finding' if count == 1 else 'findings'}."
