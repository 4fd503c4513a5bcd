"""Changing many captions at once: replace with a preview, and edits of tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from trainer.curation import caption_edits
from trainer.curation.caption_edits import Edit, replace_regex, replace_text
from ui.dataset.board import IN_ORDER, QUICK, Board, tell
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.fields import choice, folded, switch, text
from ui.dataset.html import changes_html
from ui.messages import tells_problems
from ui.theme import asset

TAG_BUTTONS = {
    "first": "Put first (trigger word)",
    "add": "Add at the end",
    "remove": "Remove",
    "unique": "Remove double tags",
}
SCOPES = [("All pictures", "all"), ("Pictures shown by the filter", "shown"), ("Selected pictures", "selected")]


def build(desk: DatasetDesk, board: Board) -> None:
    """Lay the panel out and wire it."""
    with folded("Change many captions", "dataset-edits"):
        with gr.Column(elem_classes=["fields"]):
            scope = choice("In", "edit-scope", SCOPES, "all")
            find = text("Find", "edit-find")
            replacement = text("Replace with", "edit-replacement")
            match_case = switch("Match case", "edit-case", True)
            regex = switch("Regular expression", "edit-regex", False)
        with gr.Row(elem_classes=["actions"]):
            preview = gr.Button("Preview", elem_id="edit-preview", elem_classes=["fit"])
            replace = gr.Button("Replace", elem_id="edit-replace", elem_classes=["fit"])
        result = gr.HTML("", css_template=asset("dataset/findings.css"), elem_id="edit-result", padding=False)
        with gr.Column(elem_classes=["fields"]):
            tag = text("Word or tag", "edit-tag", "For the buttons below. Tags are the parts between commas.")
        with gr.Row(elem_classes=["actions"]):
            buttons = {
                kind: gr.Button(label, elem_id=f"edit-{kind}", elem_classes=["fit"])
                for kind, label in TAG_BUTTONS.items()
            }
    _wire_replace(desk, board, [scope, find, replacement, regex, match_case], preview, replace, result)
    for kind, button in buttons.items():
        handler = _tag_handler(desk, board, kind)
        button.click(handler, [board.grid, scope, tag], [result, *board.outputs], **IN_ORDER)


def _wire_replace(
    desk: DatasetDesk, board: Board, fields: list[Any], preview: gr.Button, replace: gr.Button, result: gr.HTML
) -> None:
    @tells_problems
    def show(view: View, scope: str, find: str, replacement: str, regex: bool, case: bool) -> str:
        edit = (replace_regex if regex else replace_text)(find, replacement, match_case=case)
        return changes_html(desk.preview(view, scope, edit))

    @tells_problems
    def do(view: View, scope: str, find: str, replacement: str, regex: bool, case: bool) -> list[Any]:
        edit = (replace_regex if regex else replace_text)(find, replacement, match_case=case)
        shown, outcome = desk.edit(view, scope, f"replace {find}", edit)
        tell("Changed", outcome)
        return ["", *board.updates(shown)]

    preview.click(show, [board.grid, *fields], result, **QUICK)
    replace.click(do, [board.grid, *fields], [result, *board.outputs], **IN_ORDER)


def _tag_handler(desk: DatasetDesk, board: Board, kind: str) -> Callable[..., list[Any]]:
    @tells_problems
    def edit_tags(view: View, scope: str, tag: str) -> list[Any]:
        title, edit = tag_edit(kind, tag)
        shown, outcome = desk.edit(view, scope, title, edit)
        tell("Changed", outcome)
        return ["", *board.updates(shown)]

    return edit_tags


def tag_edit(kind: str, tag: str) -> tuple[str, Edit]:
    """A tag edit by the name of its button: (title for undo, edit). Raises UserError for a blank tag."""
    edits = {
        "first": (f"trigger word {tag.strip()}", lambda: caption_edits.put_trigger_first(tag)),
        "add": (f"add {tag.strip()}", lambda: caption_edits.add_tag(tag)),
        "remove": (f"remove {tag.strip()}", lambda: caption_edits.remove_tag(tag)),
        "unique": ("remove double tags", caption_edits.remove_duplicate_tags),
    }
    title, make = edits[kind]
    return title, make()
