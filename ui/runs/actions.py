"""The buttons of a run: each is there where it makes sense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from trainer.runs import actions, queue
from trainer.runs.control import Request
from trainer.runs.store import ENDED, RunInfo
from trainer.runs.worker import enqueue
from ui import media
from ui.messages import tells_problems
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import RunsDesk, Shown
from ui.scripted import kept
from ui.wiring import LAST_COUNTS, QUIET, TELLING

MORE_STEPS = 100
"""That a run is extended by unless somebody says otherwise."""
CONTROLS: dict[Request, tuple[str, tuple[str, ...]]] = {
    "pause": ("Pause", ("training",)),
    "resume": ("Resume", ("paused", "stopped", "failed")),
    "stop": ("Stop and save", ("starting", "preparing", "training", "paused")),
    "sample": ("Sample now", ("training",)),
    "save": ("Save now", ("training",)),
}
"""Requests to a run: what the button says, and the states in which it is there."""


@dataclass(frozen=True)
class Buttons:
    """What can be asked of the run that is shown.

    Attributes:
        leave: "Take out of the queue", for a run that waits.
        generate, merge, edit: "Generate with this", "Merge with this" and "Change and run again", which lead to
            other tabs.
        grid: "Compare checkpoints", which leads to a grid.
    """

    generate: gr.Button
    controls: dict[Request, gr.Button]
    leave: gr.Button
    download: gr.Button
    merge: gr.Button
    grid: gr.Button
    extend_by: gr.Number
    extend: gr.Button
    again: gr.Button
    edit: gr.Button
    delete: gr.Button

    @property
    def changing(self) -> list[Any]:
        """Those that come and go with the run's state, in the order of ``_updates``."""
        asking = [*self.controls.values(), self.leave, self.extend_by, self.extend]
        return [*asking, self.generate, self.merge, self.grid, self.download, self.edit, self.delete]


def build(board: RunsBoard) -> Buttons:
    """Lay the buttons out and wire those that stay on this tab."""
    buttons = _buttons()
    typed = kept(str(MORE_STEPS))
    board.add(Panel("actions", buttons.changing, _offered, _updates, inputs=[typed]))
    _wire_asking(board, buttons, typed)
    _wire_deleting(board, buttons)
    return buttons


def _buttons() -> Buttons:
    def button(label: str, name: str, **options: Any) -> gr.Button:
        return gr.Button(label, size="sm", min_width=90, scale=0, elem_id=f"run-{name}", **options)

    with gr.Row(elem_classes=["run-actions"]):
        generate = button("Generate with this", "generate", variant="primary")
        controls = {name: button(label, name) for name, (label, _) in CONTROLS.items()}
        leave = button("Take out of the queue", "leave-queue")
        download = button("Download the LoRA", "download")
        merge = button("Merge with this", "merge")
        grid = button("Compare checkpoints", "grid")
        again = button("Run again", "again")
        edit = button("Change and run again", "edit")
        delete = button("Delete", "delete")
    with gr.Row(elem_classes=["run-actions"]):
        extend_by = gr.Number(
            MORE_STEPS, precision=0, minimum=1, label="Steps more", elem_id="run-extend-by", scale=0, min_width=110
        )
        extend = button("Train on", "extend")
    return Buttons(generate, controls, leave, download, merge, grid, extend_by, extend, again, edit, delete)


def _wire_asking(board: RunsBoard, buttons: Buttons, typed: gr.HTML) -> None:
    desk = board.desk

    @tells_problems
    def again(run_id: str) -> str:
        run = desk.run(run_id)
        return board.select(enqueue(desk.workspace, run.config(), changed_from=run.id).id)

    def named(run_id: str, steps: float | None) -> list[Any]:
        label = gr.update(value=_extending(desk.run(run_id).read(), steps)) if run_id else gr.skip()
        return [label, str(steps or "")]

    @tells_problems
    def leave(run_id: str) -> None:
        queue.remove(desk.run(run_id))

    for name, button in buttons.controls.items():
        board.then_refresh(button.click(_asker(desk, name), board.selected, None, **TELLING))
    board.then_refresh(buttons.leave.click(leave, board.selected, None, **TELLING))
    given = [board.selected, buttons.extend_by]
    buttons.extend_by.input(named, given, [buttons.extend, typed], **QUIET, **LAST_COUNTS)
    board.then_refresh(buttons.extend.click(_extender(desk), given, None, **TELLING))
    board.then_refresh(buttons.again.click(again, board.selected, board.chosen, **TELLING))


def _wire_deleting(board: RunsBoard, buttons: Buttons) -> None:
    """The button shows a question; a run that is chosen meanwhile is not meant by it."""
    with gr.Row(visible=False, elem_classes=["confirm"]) as confirm:
        asked = gr.Textbox("", visible=False)
        gr.HTML("Move this run with its LoRA, previews and checkpoints to the bin?", padding=False)
        yes = gr.Button("Move to the bin", size="sm", variant="stop", scale=0, min_width=140)
        no = gr.Button("Keep it", size="sm", scale=0, min_width=100)

    @tells_problems
    def delete(run_id: str) -> str:
        run = board.desk.run(run_id)
        actions.delete(run)
        board.desk.forget(run)
        return ""

    buttons.delete.click(lambda run_id: [run_id, gr.update(visible=True)], board.selected, [asked, confirm], **QUIET)
    no.click(lambda: gr.update(visible=False), None, confirm, **QUIET)
    board.selected.change(lambda: gr.update(visible=False), None, confirm, **QUIET)
    deleted = yes.click(delete, asked, board.chosen, **TELLING)
    deleted.then(lambda: gr.update(visible=False), None, confirm, **QUIET)
    board.then_refresh(deleted)


def _asker(desk: RunsDesk, request: Request) -> Callable[[str], None]:
    @tells_problems
    def ask(run_id: str) -> None:
        actions.ask(desk.run(run_id), request)

    return ask


def _extender(desk: RunsDesk) -> Callable[[str, float | None], None]:
    @tells_problems
    def extend(run_id: str, steps: float | None) -> None:
        actions.extend(desk.run(run_id), int(steps or 0))

    return extend


def _extending(info: RunInfo, steps: float | None) -> str:
    """What the button says: to which step the run goes."""
    return f"Train on to step {actions.extended_to(info, int(steps))}" if steps and steps >= 1 else "Train on"


def _resuming(info: RunInfo) -> str:
    """The same for a run that ended before it was done; one that is paused only goes on."""
    steps = info.extend_to or info.max_steps
    return f"Resume to step {steps}" if info.state in ENDED and steps else CONTROLS["resume"][0]


def _offered(shown: Shown, typed: str) -> Any:
    """What decides which buttons are there, and what they say."""
    info = shown.view.info
    words = (_resuming(info), _extending(info, float(typed or 0))) if info.state in ENDED else None
    return info.state, shown.view.has_lora, bool(shown.view.checkpoints), words


def _updates(shown: Shown, typed: str) -> list[Any]:
    info, has_lora = shown.view.info, shown.view.has_lora
    state = info.state
    has_something, ended_well = has_lora or bool(shown.view.checkpoints), state in ("finished", "stopped")
    link = media.lora_url(shown.run.id) if has_lora else None
    labels = {name: _resuming(info) if name == "resume" else label for name, (label, _) in CONTROLS.items()}
    return [
        *(gr.update(visible=state in CONTROLS[name][1], value=label) for name, label in labels.items()),
        gr.update(visible=state == "queued"),
        gr.update(visible=ended_well),
        gr.update(visible=ended_well, value=_extending(info, float(typed or 0))),
        gr.update(visible=has_something),
        gr.update(visible=has_something),
        gr.update(visible=bool(shown.view.checkpoints)),
        gr.update(visible=has_lora, link=link),
        gr.update(visible=True),
        gr.update(visible=state in ENDED or state == "queued"),
    ]
