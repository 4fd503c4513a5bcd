"""The checkpoints of a run: sizes, their LoRAs to download or to draw with, going on from one, deleting one."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.runs import actions
from ui import media
from ui.dataset.board import sent
from ui.messages import inform, tells_problems
from ui.run_view import file_size
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown
from ui.scripted import scripted
from ui.wiring import EVERY_TIME, IN_TURN


def build(board: RunsBoard) -> gr.HTML:
    """Lay the list out, folded. Its event ``generate`` tells ``run`` and ``step``, for another tab to use."""
    with gr.Accordion("Checkpoints", open=False, elem_classes=["card", "as-text"]):
        checkpoints = scripted("run-checkpoints", css=("runs/panel",), js=("dataset/dom", "runs/checkpoints"))
    board.add(Panel("checkpoints", [checkpoints], _key, lambda shown: [_listed(shown)]))

    @tells_problems
    def go_on(event: gr.EventData) -> str:
        asked = sent(event, "run", "step", "max_steps")
        new = actions.continue_from(board.desk.run(asked["run"]), asked["step"], int(asked["max_steps"]))
        return board.select(new.id)

    @tells_problems
    def remove(event: gr.EventData) -> None:
        asked = sent(event, "run", "step")
        actions.delete_checkpoint(board.desk.run(asked["run"]), asked["step"])
        inform(f"Step {asked['step']} is in the bin, at the end of this tab.")

    board.then_refresh(checkpoints.go_on(go_on, None, board.chosen, **IN_TURN, **EVERY_TIME))
    board.then_refresh(checkpoints.remove(remove, None, None, **IN_TURN, **EVERY_TIME))
    return checkpoints


def _key(shown: Shown) -> Any:
    return shown.view.checkpoints, shown.view.info.max_steps, shown.view.info.state


def _listed(shown: Shown) -> dict[str, Any]:
    view = shown.view
    only = "It is the only one: a resume would begin anew." if len(view.checkpoints) == 1 else ""
    newest = view.checkpoints[0].step if view.checkpoints else 0
    items = [
        {
            "step": one.step,
            "size": file_size(one.size_bytes),
            "best": one.best,
            "url": media.checkpoint_url(shown.run.id, one.step),
            "warning": only or ("The run would then resume from the one before." if one.step == newest else ""),
        }
        for one in view.checkpoints
    ]
    return {"run": shown.run.id, "max_steps": view.info.max_steps or 0, "items": items}
