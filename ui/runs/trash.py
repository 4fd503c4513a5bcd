"""The bin: deleted runs and checkpoints, how much room they take, and the ways back and out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gradio as gr

from trainer.runs.bin import Bin, BinItem
from ui.dataset.board import sent
from ui.messages import inform, tells_problems
from ui.run_view import file_size
from ui.runs.board import Panel, RunsBoard
from ui.scripted import scripted
from ui.wiring import EVERY_TIME, IN_TURN, TELLING


def build(board: RunsBoard) -> None:
    """Lay the bin out; there is nothing to see of it while it is empty."""
    rubbish = Bin(board.desk.workspace.dir)
    panel = scripted("run-bin", css=("runs/panel",), js=("dataset/dom", "runs/bin"))
    board.add_overall(Panel("bin", [panel], lambda _: _version(rubbish), lambda _: [listed(rubbish.items())]))

    @tells_problems
    def restore(event: gr.EventData) -> Any:
        item = rubbish.item(str(sent(event, "id")["id"]))
        place = rubbish.restore(item.id)
        inform("It is back.")
        return board.select(place.name) if item.kind == "run" else gr.skip()

    @tells_problems
    def remove(event: gr.EventData) -> None:
        tell_freed(rubbish.remove(str(sent(event, "id")["id"])))

    @tells_problems
    def empty() -> None:
        tell_freed(rubbish.empty())

    board.then_refresh(panel.restore(restore, None, board.chosen, **IN_TURN, **EVERY_TIME))
    board.then_refresh(panel.remove(remove, None, None, **IN_TURN, **EVERY_TIME))
    board.then_refresh(panel.empty(empty, None, None, **TELLING))


def _version(rubbish: Bin) -> Any:
    """Changes when something comes or goes: each thing comes into a folder of its own."""
    try:
        with os.scandir(rubbish.dir) as folders:
            return sorted((folder.name, folder.stat().st_mtime_ns) for folder in folders)
    except FileNotFoundError:
        return []


def listed(items: Sequence[BinItem]) -> dict[str, Any]:
    """Things in the bin as ``assets/runs/bin.js`` takes them."""
    shown = [
        {
            "id": item.id,
            "title": item.title,
            "kind": item.kind,
            "size": file_size(item.size_bytes),
            "deleted": item.deleted,
        }
        for item in items
    ]
    return {"items": shown, "size": file_size(sum(item.size_bytes for item in items))}


def tell_freed(freed_bytes: int) -> None:
    """A note on how much room an emptied bin gave back."""
    inform(f"{file_size(freed_bytes)} freed.")
