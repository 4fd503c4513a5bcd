"""The Runs tab: every run and the queue, one run in full, and what can be asked of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.runs import actions
from trainer.runs.control import Request
from trainer.runs.store import ENDED, Run
from trainer.runs.worker import enqueue, requeue
from ui import media, run_html
from ui.context import AppContext
from ui.messages import tells_problems
from ui.run_list import RunListReader
from ui.run_view import RunReaders, RunView
from ui.theme import asset

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
TELLING: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
"""For handlers that may raise: Gradio shows what went wrong only for events that go through its queue."""

CONTROLS: dict[Request, tuple[str, tuple[str, ...]]] = {
    "pause": ("Pause", ("training",)),
    "resume": ("Resume", ("paused", "stopped", "failed")),
    "stop": ("Stop and save", ("queued", "starting", "preparing", "training", "paused")),
    "sample": ("Sample now", ("training",)),
    "save": ("Save now", ("training",)),
}
"""Requests to a run: what the button says, and the states in which it is there."""


@dataclass(frozen=True)
class RunsTab:
    """What other tabs use.

    Attributes:
        selected: id of the run that is shown.
        generate, merge, edit: "Generate with this", "Merge with this" and "Change and run again".
        show: handler that selects a run, for ``shown`` as outputs.
        shown: see ``show``.
        lora_of: the LoRA of a run by id: the finished one, else the newest checkpoint's. Raises UserError.
    """

    selected: gr.Textbox
    generate: gr.Button
    merge: gr.Button
    edit: gr.Button
    show: Callable[[str], list[Any]]
    shown: list[Any]
    lora_of: Callable[[str], Path]


@dataclass(frozen=True)
class _Buttons:
    """What can be asked of the run that is shown."""

    generate: gr.Button
    controls: dict[Request, gr.Button]
    download: gr.Button
    merge: gr.Button
    extend_by: gr.Number
    extend: gr.Button
    again: gr.Button
    edit: gr.Button
    delete: gr.Button
    confirm: gr.Row
    confirm_yes: gr.Button
    confirm_no: gr.Button

    @property
    def changing(self) -> list[Any]:
        """Those that come and go with the run's state, in the order of ``_button_updates``."""
        asking = [*self.controls.values(), self.extend_by, self.extend]
        return [*asking, self.generate, self.merge, self.download, self.edit, self.delete]


@dataclass(frozen=True)
class _Parts:
    """The components, in the order in which ``RunsHandlers.refresh`` fills them."""

    seen: gr.Textbox
    selected: gr.Textbox
    empty: gr.HTML
    layout: gr.Row
    listing: gr.HTML
    head: gr.HTML
    charts: gr.HTML
    wall: gr.HTML
    notes: gr.HTML
    checkpoints: gr.HTML
    log: gr.HTML
    buttons: _Buttons
    zoom: gr.Textbox

    @property
    def shown(self) -> list[Any]:
        """All that a refresh writes."""
        texts = [self.head, self.charts, self.wall, self.notes, self.checkpoints, self.log]
        return [self.seen, self.selected, self.empty, self.layout, self.listing, *texts, *self.buttons.changing]


def build(context: AppContext) -> RunsTab:
    """Lay the tab out and wire it."""
    media.add_routes(context)
    parts = _layout()
    handlers = RunsHandlers(context)

    def poll(seen: str, selected: str, zoom: str) -> list[Any] | None:
        changes = handlers.refresh(seen, selected, zoom)
        return None if changes is None else _filled(changes, parts.shown)

    def refresh_now(seen: str, selected: str, zoom: str) -> list[Any]:
        return _filled(handlers.refresh(seen, selected, zoom) or [], parts.shown)

    state = [parts.seen, parts.selected, parts.zoom]
    context.page.poll(poll, state, parts.shown)
    context.page.load(lambda: poll("", handlers.last_shown(), ""), outputs=parts.shown)
    refresh: dict[str, Any] = {"fn": refresh_now, "inputs": state, "outputs": parts.shown, **QUIET}
    _wire_choosing(parts, handlers, refresh)
    _wire_actions(parts, handlers, refresh)
    buttons = parts.buttons
    return RunsTab(
        parts.selected,
        buttons.generate,
        buttons.merge,
        buttons.edit,
        handlers.select,
        [parts.selected],
        handlers.lora_of,
    )


def _layout() -> _Parts:
    with gr.Column(elem_classes=["runs-page"]):
        seen, selected, zoom = (gr.Textbox("", visible=False) for _ in range(3))
        empty = gr.HTML(run_html.NOTHING_YET, padding=False, elem_id="runs-empty")
        with gr.Row(elem_classes=["runs-layout"], visible=False) as layout:
            with gr.Column(scale=0, min_width=280, elem_classes=["runs-side"]):
                listing = gr.HTML("", padding=False, elem_id="run-list", js_on_load=asset("pick.js"))
            with gr.Column(scale=1, min_width=320, elem_classes=["run-main"]):
                head = gr.HTML("", padding=False, elem_id="run-head")
                buttons = _buttons()
                charts = gr.HTML("", padding=False, elem_id="run-charts", js_on_load=asset("charts.js"))
                gr.HTML("<h3>Previews</h3>", padding=False)
                wall = gr.HTML("", padding=False, elem_id="sample-wall", js_on_load=asset("pictures.js"))
                notes = gr.HTML("", padding=False, elem_id="run-notes")
                with gr.Accordion("Log", open=False, elem_classes=["card", "as-text"]):
                    log = gr.HTML("", padding=False, elem_id="run-log")
                with gr.Accordion("Checkpoints", open=False, elem_classes=["card", "as-text"]):
                    checkpoints = gr.HTML("", padding=False, elem_id="run-checkpoints")
    return _Parts(
        seen=seen,
        selected=selected,
        empty=empty,
        layout=layout,
        listing=listing,
        head=head,
        charts=charts,
        wall=wall,
        notes=notes,
        checkpoints=checkpoints,
        log=log,
        buttons=buttons,
        zoom=zoom,
    )


def _buttons() -> _Buttons:
    """The row of actions, and the question before deleting."""

    def button(label: str, name: str, **options: Any) -> gr.Button:
        return gr.Button(label, size="sm", min_width=90, scale=0, elem_id=f"run-{name}", **options)

    with gr.Row(elem_classes=["run-actions"]):
        generate = button("Generate with this", "generate", variant="primary")
        controls = {name: button(label, name) for name, (label, _) in CONTROLS.items()}
        download = button("Download the LoRA", "download")
        merge = button("Merge with this", "merge")
        extend_by = gr.Number(
            100, precision=0, minimum=1, label="Steps more", elem_id="run-extend-by", scale=0, min_width=110
        )
        extend = button("Train on", "extend")
        again = button("Run again", "again")
        edit = button("Change and run again", "edit")
        delete = button("Delete", "delete")
    with gr.Row(visible=False, elem_classes=["confirm"]) as confirm:
        gr.HTML("Delete this run with its LoRA, previews and checkpoints? This cannot be undone.", padding=False)
        confirm_yes = gr.Button("Delete for good", size="sm", variant="stop", scale=0, min_width=140)
        confirm_no = gr.Button("Keep it", size="sm", scale=0, min_width=100)
    return _Buttons(
        generate=generate,
        controls=controls,
        download=download,
        merge=merge,
        extend_by=extend_by,
        extend=extend,
        again=again,
        edit=edit,
        delete=delete,
        confirm=confirm,
        confirm_yes=confirm_yes,
        confirm_no=confirm_no,
    )


def _wire_choosing(parts: _Parts, handlers: RunsHandlers, refresh: dict[str, Any]) -> None:
    changed = [parts.selected, parts.zoom, parts.buttons.confirm]
    parts.listing.pick(handlers.picked, None, changed, **QUIET).then(**refresh)
    parts.charts.zoom(handlers.zoomed, None, parts.zoom, **QUIET).then(**refresh)


def _wire_actions(parts: _Parts, handlers: RunsHandlers, refresh: dict[str, Any]) -> None:
    buttons = parts.buttons
    for name, button in buttons.controls.items():
        button.click(handlers.asker(name), parts.selected, None, **TELLING).then(**refresh)
    buttons.extend.click(handlers.extend, [parts.selected, buttons.extend_by], None, **TELLING).then(**refresh)
    buttons.again.click(handlers.again, parts.selected, parts.selected, **TELLING).then(**refresh)
    buttons.delete.click(lambda: gr.update(visible=True), None, buttons.confirm, **QUIET)
    hide: dict[str, Any] = {"fn": lambda: gr.update(visible=False), "outputs": buttons.confirm, **QUIET}
    buttons.confirm_no.click(**hide)
    deleted = buttons.confirm_yes.click(handlers.delete, parts.selected, parts.selected, **TELLING)
    deleted.then(**hide).then(**refresh)


class RunsHandlers:
    """What happens on the tab. One object for all open pages: it keeps only what the files say."""

    def __init__(self, context: AppContext) -> None:
        self._workspace = context.workspace
        self._list = RunListReader(context.workspace)
        self._readers = RunReaders()
        self._memory = context.workspace.dir / "last_run.json"

    def refresh(self, seen: str, selected: str, zoom: str) -> list[Any] | None:
        """Everything that changed since ``seen``, or None."""
        runs = self._list.read()
        ids = [info.id for info in runs.infos]
        alive = [info.id for info in runs.infos if info.state not in (*ENDED, "queued")]
        selected = selected if selected in ids else next(iter([*alive, *ids]), "")
        before = json.loads(seen) if seen else {}
        now: dict[str, Any] = {"run": selected, "list": runs.version}
        reader = self._readers.of(self._run(selected)) if selected else None
        view = reader.view() if reader else None
        if reader is None or view is None:
            nothing = [json.dumps(now), "", gr.update(visible=True), gr.update(visible=False), ""]
            return None if before == now else nothing
        now |= {"view": view.version, "zoom": zoom, "wall": repr(view.wall), "state": _offered(view)}
        if before == now:
            return None
        same_run = before.get("run") == selected
        first, last = _stretch(zoom)
        wall = (
            run_html.sample_wall(self._workspace, view) if not same_run or before.get("wall") != now["wall"] else None
        )
        changes = [
            json.dumps(now),
            selected if before.get("run") != selected else gr.skip(),
            gr.update(visible=False),
            gr.update(visible=True),
            run_html.run_list(runs.infos, runs.queue, selected),
            run_html.head_line(view),
            run_html.charts(reader, view, first, last),
            gr.skip() if wall is None else wall,
            run_html.notes(view),
            run_html.checkpoints(view),
            run_html.log_text(view),
        ]
        changed = not same_run or before.get("state") != now["state"]
        return [*changes, *(_button_updates(view) if changed else [])]

    def select(self, run_id: str) -> list[Any]:
        """Show a run, also when the page is opened again."""
        write_json(self._memory, {"run": run_id})
        return [run_id]

    def last_shown(self) -> str:
        """The run that was shown last; empty where none was."""
        try:
            return str(read_json(self._memory)["run"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def picked(self, event: gr.EventData) -> list[Any]:
        return [*self.select(str(event._data["id"])), "", gr.update(visible=False)]

    def zoomed(self, event: gr.EventData) -> str:
        first, last = event._data.get("first"), event._data.get("last")
        return f"{int(first)},{int(last)}" if first is not None and last is not None else ""

    def asker(self, request: Request) -> Callable[[str], None]:
        @tells_problems
        def ask(run_id: str) -> None:
            actions.ask(self._run(run_id), request)

        return ask

    @tells_problems
    def extend(self, run_id: str, steps: float | None) -> None:
        run = self._run(run_id)
        if not steps or steps < 1:
            raise UserError("run.extend", "Steps more must be 1 or more.", "Type how many steps to add.")
        info = run.read()
        requeue(run, max_steps=max(info.max_steps or 0, info.step) + int(steps))

    @tells_problems
    def again(self, run_id: str) -> str:
        run = enqueue(self._workspace, self._run(run_id).config())
        self.select(run.id)
        return run.id

    @tells_problems
    def delete(self, run_id: str) -> str:
        run = self._run(run_id)
        actions.delete(run)
        self._readers.forget(run)
        return ""

    def lora_of(self, run_id: str) -> Path:
        """The finished LoRA of a run, else that of its newest checkpoint. Raises UserError."""
        run = self._run(run_id)
        if run.output_path.is_file():
            return run.output_path
        for folder in sorted(run.checkpoints_dir.glob("step-*"), reverse=True):
            if (folder / "manifest.json").is_file() and (folder / "lora.safetensors").is_file():
                return folder / "lora.safetensors"
        raise UserError("run.no_lora", "This run has not saved a LoRA yet.", "Wait for its end, or press Save now.")

    def _run(self, run_id: str) -> Run:
        return self._workspace.run(run_id)


def _filled(changes: list[Any], outputs: list[Any]) -> list[Any]:
    """One value for each output: those without a change stay as they are."""
    return [*changes, *(gr.skip() for _ in outputs[len(changes) :])]


def _offered(view: RunView) -> list[Any]:
    """What decides which buttons are there."""
    return [view.info.state, view.has_lora, bool(view.checkpoints)]


def _button_updates(view: RunView) -> list[Any]:
    state, has_something = view.info.state, view.has_lora or bool(view.checkpoints)
    ended = state in ENDED
    link = media.lora_url(view.info.id) if view.has_lora else None
    return [
        *(gr.update(visible=state in states) for _, states in CONTROLS.values()),
        gr.update(visible=state in ("finished", "stopped")),
        gr.update(visible=state in ("finished", "stopped")),
        gr.update(visible=has_something),
        gr.update(visible=has_something),
        gr.update(visible=view.has_lora, link=link),
        gr.update(visible=True),
        gr.update(visible=ended or state == "queued"),
    ]


def _stretch(zoom: str) -> tuple[int | None, int | None]:
    first, comma, last = zoom.partition(",")
    return (int(first), int(last)) if comma else (None, None)
