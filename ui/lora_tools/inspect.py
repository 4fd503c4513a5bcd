"""The Inspect tool: what is in a LoRA file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.lora.merge_recipe import Recipe, read_recipe
from ui.context import AppContext
from ui.lora_choices import check_lora
from ui.lora_tools import plans
from ui.lora_tools.desk import Order, ToolDesk
from ui.lora_tools.inspection import inspection_html
from ui.lora_tools.panel import panel, wire
from ui.lora_tools.pickers import bring_button, lora_picker
from ui.lora_tools.recipes import recipe_rows
from ui.wiring import QUIET

INTRO = (
    "<h3>What is in a file</h3><p>Family, ranks, where it acts and how strongly, words it was trained on, and whether "
    "the file is sound.</p>"
)


@dataclass(frozen=True)
class InspectTool:
    """What leads on from here: the file that is looked at, and the button that merges its sources anew."""

    lora: gr.Dropdown
    again: gr.Button


def build(context: AppContext) -> InspectTool:
    """Lay the tool out and wire it."""
    with gr.Column(elem_classes=["card", "tool"]):
        gr.HTML(INTRO, padding=False, elem_classes=["card-title"])
        with gr.Column(elem_classes=["fields"]):
            lora = lora_picker(context, "inspect")
        bring_button(context, "inspect")
        shared = panel("inspect", "Inspect")
        again = gr.Button("Merge its sources again", visible=False, elem_id="inspect-again", elem_classes=["fit"])
    desk = ToolDesk(context.workspace, "inspect", inspection_html)
    wire(context, shared, desk, lambda *v: order(context, *v), lambda *v: plan(context, *v), [lora])
    lora.change(lambda path: gr.update(visible=recipe_of(context, path) is not None), lora, again, **QUIET)
    return InspectTool(lora, again)


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
    recipe = read_recipe(contents.metadata)
    if recipe is not None:
        facts += recipe_rows(recipe)
    return plans.plan_html([plans.facts(facts)], title="At first sight")


def recipe_of(context: AppContext, lora: Any) -> Recipe | None:
    """What a file was merged from; None where it does not say so, or cannot be read."""
    try:
        return read_recipe(plans.contents_of(check_lora(context, str(lora or ""))).metadata)
    except UserError:
        return None
