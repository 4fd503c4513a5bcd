"""The Dataset tab: open pictures, look at them, caption them, check them, train on them."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block

from trainer.captioners import CAPTIONERS
from trainer.config import DatasetSettings
from ui.context import AppContext
from ui.dataset_actions import DatasetActions
from ui.dataset_handlers import DatasetHandlers
from ui.theme import ASSETS
from ui.thumbnails import Thumbnails

QUICK: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
IN_ORDER: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "trigger_mode": "multiple",
    "concurrency_id": "dataset",
    "concurrency_limit": 1,
}
"""For saving and paging: one after the other, so that a page always shows what was saved before it."""
SCOPES = [("All pictures", "all"), ("Pictures shown by the filter", "shown"), ("Selected pictures", "selected")]


@dataclass(frozen=True)
class DatasetTab:
    """What other parts of the page use: the open dataset's folder (empty for none) and the button that leads on."""

    folder: gr.Textbox
    train_on: gr.Button


@dataclass(frozen=True)
class _Source:
    choice: gr.Dropdown
    path: gr.Textbox
    open: gr.Button
    files: gr.File
    name: gr.Textbox
    add: gr.Button


@dataclass(frozen=True)
class _Captions:
    captioner: gr.Dropdown
    about: gr.HTML
    model: gr.Textbox
    prompt: gr.Textbox
    trigger: gr.Textbox
    prefix: gr.Textbox
    suffix: gr.Textbox
    overwrite: gr.Checkbox
    start: gr.Button


@dataclass(frozen=True)
class _Edits:
    scope: gr.Dropdown
    find: gr.Textbox
    replacement: gr.Textbox
    regex: gr.Checkbox
    match_case: gr.Checkbox
    preview: gr.Button
    replace: gr.Button
    result: gr.HTML
    tag: gr.Textbox
    buttons: dict[str, gr.Button]


@dataclass(frozen=True)
class _Check:
    resolution: gr.Number
    start: gr.Button
    findings: gr.HTML


@dataclass(frozen=True)
class _Work:
    """The open dataset: hidden until there is one."""

    tools: gr.Column
    undo: gr.Button
    redo: gr.Button
    train_on: gr.Button
    grid: gr.HTML
    job: gr.HTML
    folder: gr.Textbox
    job_shown: gr.Textbox


def build(context: AppContext) -> DatasetTab:
    """Lay the tab out and wire it."""
    thumbnails = Thumbnails(context.workspace.cache_dir / "thumbnails")
    thumbnails.add_routes(context.page)
    actions = DatasetActions(context, thumbnails)
    source = _source(actions)
    job = _custom("dataset_job", elem_id="dataset-job")
    with gr.Column(visible=False) as tools:
        with gr.Row(elem_classes=["actions"]):
            undo = gr.Button("Undo", size="sm", interactive=False, elem_id="dataset-undo", min_width=90)
            redo = gr.Button("Redo", size="sm", interactive=False, elem_id="dataset-redo", min_width=90)
            train_on = gr.Button("Train on these pictures", variant="primary", size="sm", elem_id="dataset-train")
        captions, edits, check = _captions(), _edits(), _check()
    grid = _custom("dataset", elem_id="dataset-grid")
    folder, job_shown = gr.Textbox(visible=False), gr.Textbox(visible=False)
    work = _Work(tools, undo, redo, train_on, grid, job, folder, job_shown)
    shown: list[Block] = [grid, folder, tools, undo, redo, check.findings, source.choice]
    handlers = DatasetHandlers(actions, shown)
    _wire_source(context, handlers, source, work)
    _wire_grid(context, handlers, work)
    _wire_captions(handlers, captions, work)
    _wire_edits(handlers, edits, work)
    _wire_check(handlers, check, work)
    return DatasetTab(folder, train_on)


def _custom(name: str, **options: Any) -> gr.HTML:
    """A component with a script and a style sheet of its own. Its template stays empty: the script makes the content.

    Values must not go through a template: Gradio evaluates what a template gives as a JavaScript template string.
    """
    return gr.HTML(
        {},
        html_template="",
        css_template=_asset(f"{name}.css"),
        js_on_load=_asset(f"{name}.js"),
        apply_default_css=False,
        padding=False,
        **options,
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _source(actions: DatasetActions) -> _Source:
    with gr.Column(elem_classes=["card"]):
        with gr.Row(equal_height=False):
            choice = gr.Dropdown(
                actions.choices(),
                value=None,
                label="Your datasets",
                info="Pictures added here, and those of the demo.",
                interactive=True,
                elem_id="dataset-choice",
                elem_classes=["field"],
                min_width=240,
            )
            with gr.Column(scale=2, min_width=280), gr.Row(equal_height=False):
                path = gr.Textbox(
                    label="Or a folder on this machine",
                    info="Only folders allowed under Settings can be opened.",
                    placeholder="/path/to/pictures",
                    interactive=True,
                    lines=1,
                    max_lines=1,
                    elem_id="dataset-path",
                    elem_classes=["field"],
                    scale=4,
                    min_width=180,
                )
                open_button = gr.Button("Open", elem_id="dataset-open", scale=0, min_width=80)
        with gr.Accordion("Add pictures from this computer", open=False):
            files = gr.File(
                label="Pictures, caption files (.txt) or a zip file",
                file_count="multiple",
                interactive=True,
                height=140,
                elem_id="dataset-files",
            )
            with gr.Row(equal_height=False):
                name = gr.Textbox(
                    label="Name of the dataset",
                    info="A new one, or one you have: files are added, nothing is overwritten.",
                    placeholder="my-cat",
                    interactive=True,
                    elem_id="dataset-name",
                    elem_classes=["field"],
                )
                add = gr.Button("Add", variant="primary", elem_id="dataset-add", scale=0, min_width=100)
    return _Source(choice, path, open_button, files, name, add)


def _captions() -> _Captions:
    first = next(iter(CAPTIONERS))
    with gr.Accordion("Write captions automatically", open=False, elem_id="dataset-captions"):
        with gr.Row(equal_height=False):
            captioner = gr.Dropdown(
                [(kind.label, name) for name, kind in CAPTIONERS.items()],
                value=first,
                label="Captioner",
                interactive=True,
                filterable=False,
                elem_id="captioner",
                elem_classes=["field"],
            )
            model = _text(
                "Model", "captioner-model", f"Folder or Hugging Face id; empty for {CAPTIONERS[first].model}."
            )
            prompt = _text(CAPTIONERS[first].prompt, "captioner-prompt")
        about = gr.HTML(html.escape(CAPTIONERS[first].about), elem_classes=["quiet"], padding=False)
        with gr.Row(equal_height=False):
            trigger = _text("Trigger word", "captioner-trigger", "Put first in every caption.")
            prefix = _text("Text in front", "captioner-prefix")
            suffix = _text("Text behind", "captioner-suffix")
        with gr.Row(equal_height=False):
            overwrite = gr.Checkbox(
                False,
                label="Replace captions that are there",
                info="Off: only pictures without a caption. Either way it can be undone.",
                interactive=True,
                elem_id="captioner-overwrite",
            )
            start = gr.Button("Write captions", variant="primary", elem_id="captioner-start", scale=0, min_width=160)
    return _Captions(captioner, about, model, prompt, trigger, prefix, suffix, overwrite, start)


def _edits() -> _Edits:
    with gr.Accordion("Change many captions", open=False, elem_id="dataset-edits"):
        scope = gr.Dropdown(
            SCOPES,
            value="all",
            label="In",
            interactive=True,
            filterable=False,
            elem_id="edit-scope",
            elem_classes=["field"],
        )
        with gr.Row(equal_height=False):
            find = _text("Find", "edit-find")
            replacement = _text("Replace with", "edit-replacement")
            regex = gr.Checkbox(False, label="Regular expression", interactive=True, elem_id="edit-regex")
            match_case = gr.Checkbox(True, label="Match case", interactive=True, elem_id="edit-case")
        with gr.Row(elem_classes=["actions"]):
            preview = gr.Button("Preview", size="sm", elem_id="edit-preview")
            replace = gr.Button("Replace", size="sm", elem_id="edit-replace")
        result = gr.HTML("", css_template=_asset("dataset_findings.css"), elem_id="edit-result", padding=False)
        tag = _text("Word or tag", "edit-tag", "For the buttons below. Tags are the parts between commas.")
        with gr.Row(elem_classes=["actions"]):
            labels = {
                "first": "Put first (trigger)",
                "add": "Add at the end",
                "remove": "Remove",
                "unique": "Remove double tags",
            }
            buttons = {
                kind: gr.Button(label, size="sm", elem_id=f"edit-{kind}", min_width=120)
                for kind, label in labels.items()
            }
    return _Edits(scope, find, replacement, regex, match_case, preview, replace, result, tag, buttons)


def _check() -> _Check:
    with gr.Accordion("Check the pictures", open=False, elem_id="dataset-check"):
        with gr.Row(equal_height=False):
            resolution = gr.Number(
                DatasetSettings.model_fields["resolution"].default,
                label="Resolution you want to train at",
                info="Pictures under half of it are reported as too small.",
                precision=0,
                interactive=True,
                elem_id="check-resolution",
                elem_classes=["field"],
            )
            start = gr.Button("Check", elem_id="check-start", scale=0, min_width=120)
        findings = gr.HTML(
            "",
            css_template=_asset("dataset_findings.css"),
            js_on_load=_asset("dataset_findings.js"),
            elem_id="dataset-findings",
            apply_default_css=False,
            padding=False,
        )
    return _Check(resolution, start, findings)


def _text(label: str, elem_id: str, info: str | None = None) -> gr.Textbox:
    return gr.Textbox(
        label=label,
        info=info,
        lines=1,
        max_lines=1,
        interactive=True,
        elem_id=elem_id,
        elem_classes=["field"],
        min_width=180,
    )


def _wire_source(context: AppContext, handlers: DatasetHandlers, source: _Source, work: _Work) -> None:
    shown = handlers.outputs
    source.choice.input(handlers.open, source.choice, shown, **QUICK)
    source.open.click(handlers.open, source.path, shown, **QUICK)
    source.path.submit(handlers.open, source.path, shown, **QUICK)
    source.add.click(handlers.upload, [source.files, source.name], [source.files, *shown], api_visibility="private")
    context.page.load(handlers.restore, outputs=shown)


def _wire_grid(context: AppContext, handlers: DatasetHandlers, work: _Work) -> None:
    shown = handlers.outputs
    work.grid.turn(handlers.turn, work.grid, shown, **IN_ORDER)
    work.grid.save(handlers.save, work.grid, shown, **IN_ORDER)
    work.job.refresh(handlers.refresh, work.grid, shown, **IN_ORDER)
    work.job.cancel(handlers.cancel, None, None, **QUICK)
    work.undo.click(handlers.undo, work.grid, shown, **IN_ORDER)
    work.redo.click(handlers.redo, work.grid, shown, **IN_ORDER)
    context.page.poll(handlers.poll, [work.folder, work.job_shown], [work.job, work.job_shown])


def _wire_captions(handlers: DatasetHandlers, captions: _Captions, work: _Work) -> None:
    captions.captioner.input(
        handlers.describe, captions.captioner, [captions.about, captions.model, captions.prompt], queue=False, **QUICK
    )
    order = [captions.captioner, captions.model, captions.prompt, captions.trigger, captions.prefix, captions.suffix]
    captions.start.click(
        handlers.start_captions,
        [work.grid, work.folder, *order, captions.overwrite],
        [work.job, work.job_shown],
        **QUICK,
    )


def _wire_edits(handlers: DatasetHandlers, edits: _Edits, work: _Work) -> None:
    what = [work.grid, edits.scope, edits.find, edits.replacement, edits.regex, edits.match_case]
    edits.preview.click(handlers.preview, what, edits.result, **QUICK)
    edits.replace.click(handlers.replace, what, [edits.result, *handlers.outputs], **IN_ORDER)
    for kind, button in edits.buttons.items():
        button.click(
            handlers.tag_editor(kind),
            [work.grid, edits.scope, edits.tag],
            [edits.result, *handlers.outputs],
            **IN_ORDER,
        )


def _wire_check(handlers: DatasetHandlers, check: _Check, work: _Work) -> None:
    check.start.click(
        handlers.start_check, [work.grid, work.folder, check.resolution], [work.job, work.job_shown], **QUICK
    )
    check.findings.show(handlers.show_finding, work.grid, handlers.outputs, **IN_ORDER)
