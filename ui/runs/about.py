"""The name of a run and the note on it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.runs import actions
from ui.dataset.board import sent
from ui.messages import tells_problems
from ui.runs.board import TELLING, Panel, RunsBoard
from ui.runs.desk import Shown
from ui.scripted import scripted


def build(board: RunsBoard) -> None:
    """Lay the note out, with the form that changes it and the name."""
    about = scripted("run-about", css=("runs/panel",), js=("dataset/dom", "runs/about"))
    board.add(Panel("about", [about], _told, lambda shown: [_told(shown)]))

    @tells_problems
    def save(event: gr.EventData) -> None:
        asked = sent(event, "run", "name", "note")
        run = board.desk.run(asked["run"])
        if asked["name"] != run.read().name:
            actions.rename(run, asked["name"])
        actions.note(run, asked["note"])

    board.then_refresh(about.save(save, None, None, **TELLING))


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
