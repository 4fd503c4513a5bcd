"""The Dataset tab: open pictures, look at them, caption them, check them, train on them."""

from __future__ import annotations

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
TAG_BUTTONS = {
    "first": "Put first (trigger word)",
    "add": "Add at the end",
    "remove": "Remove",
    "unique": "Remove double tags",
}
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
            train_on = gr.Button(
                "Train on these pictures", variant="primary", size="md", elem_id="dataset-train", elem_classes=["fit"]
            )
            undo = gr.Button("Undo", size="md", interactive=False, elem_id="dataset-undo", elem_classes=["fit"])
            redo = gr.Button("Redo", size="md", interactive=False, elem_id="dataset-redo", elem_classes=["fit"])
            last = gr.HTML("", elem_id="dataset-last", elem_classes=["quiet", "fit"], padding=False)
        captions, edits, check = _captions(), _edits(), _check()
    grid = _custom("dataset", elem_id="dataset-grid")
    folder, job_shown = gr.Textbox("", visible=False), gr.Textbox("", visible=False)
    work = _Work(tools, undo, redo, train_on, grid, job, folder, job_shown)
    shown: list[Block] = [grid, folder, tools, undo, redo, last, check.findings, source.choice]
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
        with gr.Row(elem_classes=["open-dataset"]):
            choice = gr.Dropdown(
                actions.choices(),
                value=None,
                label="Your datasets",
                info="Pictures you added here, and those of the demo.",
                interactive=True,
                elem_id="dataset-choice",
                elem_classes=["field"],
            )
            info = "Settings has the list of folders that may be opened."
            path = _text("Or a folder on this machine", "dataset-path", info, "/path/to/pictures")
            open_button = gr.Button("Open", elem_id="dataset-open", scale=0, min_width=90)
        with gr.Accordion("Add pictures from this computer", open=False, elem_id="dataset-upload"):
            files = gr.File(
                label="Pictures, caption files (.txt) or a zip file",
                file_count="multiple",
                interactive=True,
                height=140,
                elem_id="dataset-files",
            )
            with gr.Row(elem_classes=["open-dataset"]):
                info = "A new one, or one you have: files are added to it, nothing is overwritten."
                name = _text("Name of the dataset", "dataset-name", info, "my-cat")
                add = gr.Button("Add", variant="primary", elem_id="dataset-add", scale=0, min_width=90)
    return _Source(choice, path, open_button, files, name, add)


def _captions() -> _Captions:
    name, kind = next(iter(CAPTIONERS.items()))
    with _folded("Write captions automatically", "dataset-captions"):
        with gr.Column(elem_classes=["fields"]):
            captioner = gr.Dropdown(
                [(other.label, key) for key, other in CAPTIONERS.items()],
                value=name,
                label="Captioner",
                info=kind.about,
                interactive=True,
                filterable=False,
                elem_id="captioner",
                elem_classes=["field"],
            )
            model = _text("Model", "captioner-model", f"Folder or Hugging Face id; empty for {kind.model}.")
            prompt = _text(kind.prompt, "captioner-prompt")
            trigger = _text("Trigger word", "captioner-trigger", "Put first in every caption.")
            prefix = _text("Text in front", "captioner-prefix")
            suffix = _text("Text behind", "captioner-suffix")
        overwrite = gr.Checkbox(
            False,
            label="Replace captions that are there",
            info="Off: only pictures without a caption get one. Either way, undo brings the old captions back.",
            interactive=True,
            elem_id="captioner-overwrite",
            elem_classes=["field"],
        )
        with gr.Row(elem_classes=["actions"]):
            start = gr.Button("Write captions", variant="primary", elem_id="captioner-start", elem_classes=["fit"])
    return _Captions(captioner, model, prompt, trigger, prefix, suffix, overwrite, start)


def _edits() -> _Edits:
    with _folded("Change many captions", "dataset-edits"):
        with gr.Column(elem_classes=["fields"]):
            scope = gr.Dropdown(
                SCOPES,
                value="all",
                label="In",
                interactive=True,
                filterable=False,
                elem_id="edit-scope",
                elem_classes=["field"],
            )
            find = _text("Find", "edit-find")
            replacement = _text("Replace with", "edit-replacement")
            match_case = _switch("Match case", "edit-case", True)
            regex = _switch("Regular expression", "edit-regex", False)
        with gr.Row(elem_classes=["actions"]):
            preview = gr.Button("Preview", elem_id="edit-preview", elem_classes=["fit"])
            replace = gr.Button("Replace", elem_id="edit-replace", elem_classes=["fit"])
        result = gr.HTML("", css_template=_asset("dataset_findings.css"), elem_id="edit-result", padding=False)
        with gr.Column(elem_classes=["fields"]):
            tag = _text("Word or tag", "edit-tag", "For the buttons below. Tags are the parts between commas.")
        with gr.Row(elem_classes=["actions"]):
            buttons = {
                kind: gr.Button(label, elem_id=f"edit-{kind}", elem_classes=["fit"])
                for kind, label in TAG_BUTTONS.items()
            }
    return _Edits(scope, find, replacement, regex, match_case, preview, replace, result, tag, buttons)


def _check() -> _Check:
    with _folded("Check the pictures", "dataset-check"):
        with gr.Column(elem_classes=["fields"]):
            resolution = gr.Number(
                DatasetSettings.model_fields["resolution"].default,
                label="Resolution you want to train at",
                info="Pictures under half of it are reported as too small.",
                precision=0,
                interactive=True,
                elem_id="check-resolution",
                elem_classes=["field"],
            )
        with gr.Row(elem_classes=["actions"]):
            start = gr.Button("Check", elem_id="check-start", elem_classes=["fit"])
        findings = gr.HTML(
            "",
            css_template=_asset("dataset_findings.css"),
            js_on_load=_asset("dataset_findings.js"),
            elem_id="dataset-findings",
            apply_default_css=False,
            padding=False,
        )
    return _Check(resolution, start, findings)


def _folded(label: str, elem_id: str) -> gr.Accordion:
    return gr.Accordion(label, open=False, elem_id=elem_id, elem_classes=["card", "as-text"])


def _switch(label: str, elem_id: str, value: bool) -> gr.Checkbox:
    return gr.Checkbox(value, label=label, interactive=True, elem_id=elem_id, elem_classes=["field"])


def _text(label: str, elem_id: str, info: str | None = None, placeholder: str | None = None) -> gr.Textbox:
    return gr.Textbox(
        label=label,
        info=info,
        placeholder=placeholder,
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
        handlers.describe,
        captions.captioner,
        [captions.captioner, captions.model, captions.prompt],
        queue=False,
        **QUICK,
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
