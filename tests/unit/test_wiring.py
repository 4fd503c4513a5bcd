"""How events are wired is said in one place."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from trainer.runs.store import Workspace
from ui import wiring
from ui.context import AppContext
from ui.shell import build_page

UI = Path(wiring.__file__).parent
MAY_BE_TOLD_AGAIN = {
    "_fitting",
    "_relevant",
    "TrainHandlers.changed",
    "_look.<locals>.<lambda>",
    "build.<locals>.open_chosen",
}
"""They keep what stands in the form, and the theme; show what suits a choice; or compare it with what is shown."""


def test_no_other_file_has_such_arguments_of_its_own() -> None:
    own = {path.relative_to(UI).as_posix() for path in UI.rglob("*.py") if '"show_progress":' in path.read_text()}
    assert own == {"wiring.py"}


def test_handlers_of_lists_follow_choices_and_not_each_loss_of_focus(tmp_path: Path) -> None:
    page = build_page(AppContext(Workspace(tmp_path)))
    lists = {number for number, block in page.blocks.items() if isinstance(block, gr.Dropdown)}
    following = {
        handler.fn.__qualname__
        for handler in page.fns.values()
        if handler.fn is not None and any(number in lists and event == "input" for number, event in handler.targets)
    }
    assert following == MAY_BE_TOLD_AGAIN
