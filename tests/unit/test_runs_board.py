"""The board of the Runs tab sends what is new, of the run that is shown, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from trainer.config import Config
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import RunsDesk


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


class Asked:
    """A board with one panel about all runs and one about the shown run, and the function that the page polls."""

    def __init__(self, workspace: Workspace) -> None:
        context = AppContext(workspace)
        self.board = RunsBoard(RunsDesk(workspace))
        one, two, given = (gr.Textbox() for _ in range(3))
        self.board.add_overall(Panel("all", [one], lambda all_: len(all_.runs.infos), lambda all_: [all_.selected]))
        self.board.add(Panel("run", [two], self._key, lambda shown, given: [f"{shown.view.info.note}{given}"], [given]))
        self.board.wire(context)
        (self._poll,) = context.page.pollers

    @staticmethod
    def _key(shown: Any, given: str) -> Any:
        return shown.view.info.note, given

    def poll(self, seen: str, selected: str, given: str = "", chosen: str = "") -> list[Any] | None:
        answer = self._poll.function(seen, chosen, selected, given)
        return None if answer is None else list(answer)


SKIP = gr.skip()


def test_only_panels_with_something_new_are_sent(workspace: Workspace) -> None:
    first = workspace.create_run(Config(name="first"))
    with gr.Blocks():
        asked = Asked(workspace)
    seen, selected, of_all, of_run = asked.poll("", "")  # type: ignore[misc]
    assert (selected, of_all, of_run) == (first.id, first.id, "")
    assert asked.poll(seen, first.id) is None
    first.update(note="hot")
    seen, *rest = asked.poll(seen, first.id)  # type: ignore[misc]
    assert rest == [first.id, SKIP, "hot"]
    seen, *rest = asked.poll(seen, first.id, "!")  # type: ignore[misc]
    assert rest == [first.id, SKIP, "hot!"]
    second = workspace.create_run(Config(name="second"))
    second.update(note="hot")
    seen, *rest = asked.poll(seen, first.id, "!")  # type: ignore[misc]
    assert rest == [first.id, first.id, SKIP]
    seen, *rest = asked.poll(seen, first.id, "!", chosen=second.id)  # type: ignore[misc]
    assert rest == [second.id, SKIP, "hot!"], "another run is sent whole, however alike"


def test_a_choice_is_not_taken_back_by_an_answer_that_was_on_its_way(workspace: Workspace) -> None:
    first, second = (workspace.create_run(Config(name=name)) for name in ("first", "second"))
    with gr.Blocks():
        asked = Asked(workspace)
    asked.board.select(first.id)
    late = asked.poll("", "")
    assert late is not None
    seen, shown, *_ = late
    assert shown == first.id
    chosen = asked.board.select(second.id)
    now = asked.poll("", "", chosen=chosen)
    assert now is not None
    assert now[1] == second.id
    again = asked.poll(seen, shown, chosen=chosen)  # the late answer came after it
    assert again is not None
    assert again[1] == second.id
    assert asked.poll(again[0], again[1], chosen=chosen) is None


def test_without_runs_panels_of_a_run_are_left_alone(workspace: Workspace) -> None:
    with gr.Blocks():
        asked = Asked(workspace)
    seen, *rest = asked.poll("", "")  # type: ignore[misc]
    assert rest == ["", "", SKIP]
    assert asked.poll(seen, "") is None


def test_the_run_that_was_chosen_is_shown_again_and_a_deleted_one_is_not(workspace: Workspace) -> None:
    older, newer = (workspace.create_run(Config(name=name)) for name in ("older", "newer"))
    newer.update(created=newer.read().created + 5)
    desk = RunsDesk(workspace)
    assert desk.look("").selected == newer.id
    desk.remember(older.id)
    assert RunsDesk(workspace).look("").selected == older.id
    workspace.delete_run(older)
    assert desk.look("").selected == desk.look(older.id).selected == newer.id
