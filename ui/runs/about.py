"""The name of a run, what it was made of, and the note on it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.runs import actions
from ui.dataset.board import sent
from ui.messages import tells_problems
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import Shown
from ui.runs.origin import origin_of
from ui.scripted import scripted
from ui.wiring import QUIET, TELLING


def build(board: RunsBoard) -> None:
    """Lay the note out, with the form that changes it and the name."""
    about = scripted("run-about", css=("runs/panel", "runs/about"), js=("dataset/dom", "runs/about"))

    def told(shown: Shown) -> dict[str, Any]:
        return {**_told(shown), "origin": origin_of(board.desk.workspace, shown.view.info)}

    board.add(Panel("about", [about], told, lambda shown: [told(shown)]))

    @tells_problems
    def save(event: gr.EventData) -> None:
        asked = sent(event, "run", "name", "note")
        run = board.desk.run(asked["run"])
        if asked["name"] != run.read().name:
            actions.rename(run, asked["name"])
        actions.note(run, asked["note"])

    def picked(event: gr.EventData) -> str:
        return board.select(str(sent(event, "run")["run"]))

    board.then_refresh(about.save(save, None, None, **TELLING))
    board.then_refresh(about.pick(picked, None, board.chosen, **QUIET))


def _told(shown: Shown) -> dict[str, Any]:
    info = shown.view.info
    begun = f"Goes on from {info.begun_from}." if info.begun_from else ""
    return {
        "run": info.id,
        "name": info.name,
        "note": info.note,
        "begun": begun,
        "note_characters": actions.NOTE_CHARACTERS,
    }
