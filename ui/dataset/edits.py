"""Changing many captions at once: an operation with its options, a preview, and the change as one step of undo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from trainer.curation.caption_edits import count_tags
from trainer.curation.operations import OPERATIONS, Operation, operation
from trainer.curation.steps import Change
from ui.dataset.board import IN_ORDER, ONE_BY_ONE, Board, custom, sent, tell
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.differences import differences, fingerprint
from ui.dataset.fields import choice, folded
from ui.dataset.option_fields import OptionFields
from ui.messages import tells_problems, warn
from ui.wiring import TELLING

SCOPES = [("All pictures", "all"), ("Pictures shown by the filter", "shown"), ("Selected pictures", "selected")]
_CHANGED_SINCE = "This is not what you looked at: captions or settings changed since. Look again, then apply."


def build(desk: DatasetDesk, board: Board) -> None:
    """Lay the panel out and wire it."""
    first = next(iter(OPERATIONS))
    with folded("Change many captions", "dataset-edits"):
        with gr.Column(elem_classes=["fields"]):
            kinds = [(model.label, name) for name, model in OPERATIONS.items()]
            chosen = choice("What to do", "edit-operation", kinds, first, OPERATIONS[first].about)
            scope = choice("In", "edit-scope", SCOPES, "all")
        options = OptionFields(OPERATIONS, "edit")
        with gr.Row(elem_classes=["actions"]):
            preview = gr.Button("Preview", elem_id="edit-preview", elem_classes=["fit"])
            apply = gr.Button("Apply", variant="primary", elem_id="edit-apply", elem_classes=["fit"])
        result = custom("edit-result", css=("differences",), js=("dom", "differences"))
        result.render()
        looked_at = gr.Textbox("", visible=False)

    def describe(name: str) -> list[Any]:
        return [gr.update(info=OPERATIONS[name].about), {}, "", *options.chosen(name)]

    def order(name: str, shown: Sequence[Any]) -> Operation:
        return operation(name, options.read(name, shown))

    @tells_problems
    def show(view: View, name: str, scope: str, *shown: Any) -> list[Any]:
        changes = changes_of(desk, view, scope, order(name, shown))
        return [differences(changes, 0), fingerprint(changes)]

    @tells_problems
    def turn(event: gr.EventData, view: View, name: str, scope: str, *shown: Any) -> list[Any]:
        page = sent(event, "page")["page"]
        changes = changes_of(desk, view, scope, order(name, shown))
        return [differences(changes, page if isinstance(page, int) else 0), fingerprint(changes)]

    @tells_problems
    def do(view: View, seen: str, name: str, scope: str, *shown: Any) -> list[Any]:
        chosen = order(name, shown)
        changes = changes_of(desk, view, scope, chosen)
        if seen and seen != fingerprint(changes):
            warn(_CHANGED_SINCE)
            return [differences(changes, 0), fingerprint(changes), *board.unchanged()]
        after, outcome = desk.apply(view, chosen.title(), changes)
        tell("Changed", outcome)
        return [{}, "", *board.updates(after)]

    form = [chosen, scope, *options.components]
    chosen.change(describe, chosen, [chosen, result, looked_at, *options.columns], queue=False, **TELLING)
    preview.click(show, [board.grid, *form], [result, looked_at], **IN_ORDER)
    result.turn(turn, [board.grid, *form], [result, looked_at], **IN_ORDER)
    apply.click(do, [board.grid, looked_at, *form], [result, looked_at, *board.outputs], **ONE_BY_ONE)


def changes_of(desk: DatasetDesk, view: View, scope: str, chosen: Operation) -> list[Change]:
    """What an operation would change. Raises UserError when an option is missing or no picture is meant."""
    counts = dict(count_tags(entry.own.text for entry in desk.scoped(view, "all")))
    return desk.preview(view, scope, chosen.edit(counts))
