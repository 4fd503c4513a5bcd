"""The Merge tab: LoRAs put together with a live picture, and the tools that extract, resize, convert and inspect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.context import AppContext
from ui.lora_rows import LoraRows
from ui.lora_tools import convert, extract, inspect, resize
from ui.lora_tools.merging import merge_form, wire_merge
from ui.lora_tools.pickers import bring_button
from ui.lora_tools.preview import Preview, look_fields
from ui.messages import tells_problems
from ui.tabs.generate import UseLora

TOOLS = {"Extract": extract, "Resize": resize, "Convert": convert, "Inspect": inspect}


@dataclass(frozen=True)
class MergeTab:
    """What other tabs use.

    Attributes:
        use_lora: handler that puts a LoRA file, trained on ``model``, into the first row, with a prompt to look at.
        filled: its outputs.
        preview: keyword arguments of the event that draws the preview, to be chained with ``.then``.
    """

    use_lora: UseLora
    filled: list[Any]
    preview: dict[str, Any]


def build(context: AppContext) -> MergeTab:
    """Lay the tab out and wire it."""
    with gr.Tabs(elem_classes=["tools"], overflow_behavior="wrap"):
        with gr.Tab("Combine", id="combine", elem_id="tool-combine"):
            merge = _merge(context)
        for label, tool in TOOLS.items():
            with gr.Tab(label, id=label.lower(), elem_id=f"tool-{label.lower()}"):
                tool.build(context)
    return merge


def _merge(context: AppContext) -> MergeTab:
    with gr.Row(elem_classes=["two-columns", "side-first"]):
        with gr.Column(scale=4, elem_classes=["main-column"]):
            with gr.Column(elem_classes=["card"]):
                rows = LoraRows(context, "merge", "Ratio")
                bring_button(context, "merge")
            look = look_fields(context)
            form = merge_form()
        with gr.Column(scale=5, min_width=320, elem_classes=["side"]), gr.Column(elem_classes=["card"]):
            preview = Preview(context, rows, look)
    preview.wire()
    wire_merge(context, rows, look.model, form)
    return MergeTab(tells_problems(preview.use_lora), preview.filled, preview.ask)
