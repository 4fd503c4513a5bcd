"""The Merge tab: LoRAs put together with a live picture, and the tools that extract, resize, convert and inspect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from ui.context import AppContext
from ui.lora_choices import RowUse
from ui.lora_rows import ROWS, LoraRows
from ui.lora_tools import convert, extract, inspect, resize
from ui.lora_tools.desk import ToolDesk
from ui.lora_tools.inspect import InspectTool
from ui.lora_tools.merge_memory import MergeMemory
from ui.lora_tools.merging import MergeForm, how_updates, merge_form, wire_merge
from ui.lora_tools.pickers import bring_button
from ui.lora_tools.preview import Look, Preview, look_fields
from ui.lora_tools.recipes import find_sources
from ui.messages import tells_problems, warn
from ui.tabs.generate import UseLora
from ui.wiring import TELLING

TOOLS = {"Extract": extract, "Resize": resize, "Convert": convert}


@dataclass(frozen=True)
class MergeTab:
    """What other tabs use.

    Attributes:
        use_lora: handler that puts a LoRA file, trained on ``model``, into the first row, with a prompt to look at.
        filled: its outputs.
        preview: keyword arguments of the event that draws the preview, to be chained with ``.then``.
        try_it: the button that leads to the Generate tab with the LoRA that was saved.
        saved: that LoRA; None where there is none.
        model: the field of the model that the preview is drawn with.
    """

    use_lora: UseLora
    filled: list[Any]
    preview: dict[str, Any]
    try_it: gr.Button
    saved: Callable[[], Path | None]
    model: gr.Dropdown


@dataclass(frozen=True)
class _Combine:
    rows: LoraRows
    look: Look
    form: MergeForm
    preview: Preview
    desk: ToolDesk


def build(context: AppContext) -> MergeTab:
    """Lay the tab out and wire it."""
    with gr.Tabs(elem_classes=["tools"], overflow_behavior="wrap") as tools:
        with gr.Tab("Combine", id="combine", elem_id="tool-combine"):
            combine = _combine(context)
        for label, tool in TOOLS.items():
            with gr.Tab(label, id=label.lower(), elem_id=f"tool-{label.lower()}"):
                tool.build(context)
        with gr.Tab("Inspect", id="inspect", elem_id="tool-inspect"):
            inspected = inspect.build(context)
    _lead_on(context, combine, inspected, tools)
    preview, form = combine.preview, combine.form
    use_lora = tells_problems(preview.use_lora)
    return MergeTab(use_lora, preview.filled, preview.ask, form.try_it, combine.desk.lora, combine.look.model)


def _combine(context: AppContext) -> _Combine:
    memory = MergeMemory(context.workspace)
    with gr.Row(elem_classes=["two-columns", "side-first"]):
        with gr.Column(scale=4, elem_classes=["main-column"]):
            with gr.Column(elem_classes=["card"]):
                rows = LoraRows(context, "merge", "Ratio")
                bring_button(context, "merge")
            look = look_fields(context)
            form = merge_form()
        with gr.Column(scale=5, min_width=320, elem_classes=["side"]), gr.Column(elem_classes=["card"]):
            preview = Preview(context, rows, look, form, memory)
    preview.wire()
    desk = wire_merge(context, rows, look.model, form, memory)
    context.page.load(preview.show_last, outputs=preview.kept)
    return _Combine(rows, look, form, preview, desk)


def _lead_on(context: AppContext, combine: _Combine, inspected: InspectTool, tools: gr.Tabs) -> None:
    """A saved LoRA becomes the one that is merged; a merged one is taken apart into what it was made of."""
    rows, ask = combine.rows, combine.preview.ask

    @tells_problems
    def use_saved() -> list[Any]:
        saved = combine.desk.lora()
        return [gr.skip() for _ in rows.outputs] if saved is None else rows.show([RowUse(str(saved), 1.0)])

    @tells_problems
    def merge_again(lora: Any) -> list[Any]:
        recipe = inspect.recipe_of(context, lora)
        if recipe is None:
            raise UserError("merge.no_recipe", "This file does not say what it was merged from.", "Choose another one.")
        uses, notes = find_sources(context.workspace, recipe)
        notes += [f"only the first {ROWS} of {len(uses)} LoRAs fit here"] if len(uses) > ROWS else []
        if notes:
            warn(f"{'; '.join(notes)}.")
        return [gr.Tabs(selected="combine"), *rows.show(uses), *how_updates(recipe.settings)]

    combine.form.use_it.click(use_saved, None, rows.outputs, **TELLING).success(**ask)
    filled = [tools, *rows.outputs, *combine.form.how]
    inspected.again.click(merge_again, inspected.lora, filled, **TELLING).success(**ask)
