"""The Generate tab: a prompt, LoRAs with weights, the usual settings, and the pictures they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.pictures import PictureSettings
from trainer.runs.settings import read_settings as read_app_settings
from trainer.studio import Studio
from ui.context import AppContext
from ui.generate.album import Album
from ui.generate.desk import GenerateDesk
from ui.generate.form import Form
from ui.generate.handlers import GenerateHandlers
from ui.generate.history import History
from ui.generate.work import Work
from ui.grids.panel import GridPanel
from ui.scripted import scripted
from ui.wiring import EVERY_TIME, LAST_COUNTS, QUIET, TELLING

UseLora = Callable[[Path, str, PictureSettings | None], list[Any]]


@dataclass(frozen=True)
class GenerateTab:
    """What other tabs use.

    Attributes:
        use_lora: handler that sets the form up for a LoRA file, trained on ``model``, with a prompt to start from.
        filled: its outputs.
        grids: the panel for grids.
    """

    use_lora: UseLora
    filled: list[Any]
    grids: GridPanel


@dataclass(frozen=True)
class _Side:
    generate: gr.Button
    work: Work
    drop: gr.HTML
    history: History


def build(context: AppContext) -> GenerateTab:
    """Lay the tab out and wire it."""
    studio = Studio(context.workspace, read_app_settings(context.workspace).studio_idle_minutes)
    desk = GenerateDesk(studio)
    album = Album(context.workspace)
    with gr.Row(elem_classes=["two-columns"]):
        with gr.Column(scale=4, elem_classes=["main-column"]):
            form = Form(context)
        with gr.Column(scale=5, min_width=320, elem_classes=["side"]):
            side = _side(context, desk, album)
    grids = GridPanel(context, studio)  # below both: it needs the width
    handlers = GenerateHandlers(context, form, desk, album)
    context.page.load(handlers.show_last, outputs=form.outputs)
    _wire(handlers, form, side, grids)
    return GenerateTab(handlers.use_lora, form.outputs, grids)


def _side(context: AppContext, desk: GenerateDesk, album: Album) -> _Side:
    with gr.Column(elem_classes=["card"]):
        generate = gr.Button("Generate", variant="primary", elem_id="generate")
        work = Work(desk, album, context)
    drop = scripted("generate-drop", css=("dataset/drop", "generate/hints"), js=("dataset/dom", "generate/drop"))
    return _Side(generate, work, drop, History(context, album))


def _wire(handlers: GenerateHandlers, form: Form, side: _Side, grids: GridPanel) -> None:
    found = gr.Textbox("", visible=False)
    """What a handler that may fail hands on: Gradio marks the outputs of a failed one as wrong."""
    for event in (side.generate.click, form.fields["prompt"].submit):
        asked = event(handlers.generate, form.inputs, found, **TELLING, **EVERY_TIME)
        asked.success(lambda seed: seed, found, form.fields["seed"], **QUIET, **LAST_COUNTS)
        asked.then(**side.work.refreshing)
    picked = side.history.panel.pick(handlers.pick, None, found, **TELLING, **EVERY_TIME)
    dropped = side.drop.dropped(handlers.open_picture, None, found, **TELLING)
    cell = grids.sheet.use(grids.use_cell, None, found, **TELLING)
    for shown in (picked, dropped, cell):
        shown.success(handlers.show_found, found, form.outputs, **QUIET, **LAST_COUNTS)
    picked.then(**side.work.refreshing)
    grids.wire(form.inputs, handlers.read)
