"""The Inspect tool: what is in a LoRA file."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.errors import UserError
from ui.context import AppContext
from ui.lora_choices import check_lora
from ui.lora_tools import plans
from ui.lora_tools.desk import Order, ToolDesk
from ui.lora_tools.inspection import inspection_html
from ui.lora_tools.panel import panel, wire
from ui.lora_tools.pickers import bring_button, lora_picker

INTRO = (
    "<h3>What is in a file</h3><p>Family, ranks, where it acts and how strongly, words it was trained on, and whether "
    "the file is sound.</p>"
)


def build(context: AppContext) -> None:
    """Lay the tool out and wire it."""
    with gr.Column(elem_classes=["card", "tool"]):
        gr.HTML(INTRO, padding=False, elem_classes=["card-title"])
        with gr.Column(elem_classes=["fields"]):
            lora = lora_picker(context, "inspect")
        bring_button(context, "inspect")
        shared = panel("inspect", "Inspect")
    desk = ToolDesk(context.workspace, "inspect", inspection_html)
    wire(context, shared, desk, lambda *v: order(context, *v), lambda *v: plan(context, *v), [lora])


def order(context: AppContext, lora: Any) -> Order:
    """The job for this file."""
    path = check_lora(context, str(lora or ""))
    return Order(["inspect", str(path)], f"Inspect {path.name}")


def plan(context: AppContext, lora: Any) -> str:
    """What the header alone tells, at once."""
    if not lora:
        return ""
    try:
        contents = plans.contents_of(check_lora(context, str(lora)))
    except UserError:
        return ""  # perhaps a model: looking inside will tell
    facts = [
        ("Family", contents.family or "not told"),
        ("Kind", " and ".join(contents.kinds)),
        ("Rank", plans.listed(contents.ranks) or "full"),
        ("Names", contents.naming),
    ]
    return plans.plan_html([plans.facts(facts)], title="At first sight")
