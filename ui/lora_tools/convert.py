"""The Convert tool: a LoRA in the names that another program reads."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.errors import UserError
from ui.context import AppContext
from ui.lora_choices import check_lora
from ui.lora_tools import plans
from ui.lora_tools.desk import Order, ToolDesk, name_problems, saved
from ui.lora_tools.panel import FIELD, PRECISIONS, output_name, panel, wire
from ui.lora_tools.pickers import lora_picker

INTRO = (
    "<h3>Other names for the same LoRA</h3><p>ComfyUI, Forge and A1111 read kohya's names; diffusers and PEFT have "
    "their own. The numbers stay as they are.</p>"
)
FORMS = [
    ("kohya: ComfyUI, Forge, A1111, InvokeAI", "kohya"),
    ("diffusers", "diffusers"),
    ("PEFT: a folder", "peft"),
]


def build(context: AppContext) -> None:
    """Lay the tool out and wire it."""
    with gr.Column(elem_classes=["card", "tool"]):
        gr.HTML(INTRO, padding=False, elem_classes=["card-title"])
        with gr.Column(elem_classes=["fields"]):
            lora = lora_picker(context, "convert")
            form = gr.Dropdown(FORMS, value="kohya", label="Names", filterable=False, elem_id="convert-to", **FIELD)
            rank = gr.Number(
                0,
                label="Rank for LoHa and LoKr",
                info="0: they stay what they are.",
                minimum=0,
                precision=0,
                elem_id="convert-rank",
                **FIELD,
            )
            precision = gr.Dropdown(
                PRECISIONS, value="", label="Number format", filterable=False, elem_id="convert-precision", **FIELD
            )
            name, replace = output_name("convert", "my-converted")
        shared = panel("convert", "Convert")
    desk = ToolDesk(context.workspace, "convert", report)
    inputs = [lora, form, rank, precision, name, replace]
    wire(context, shared, desk, lambda *v: order(context, *v), lambda *v: plan(context, *v), inputs)


def order(context: AppContext, *values: Any) -> Order:
    """The job for these values."""
    lora, form, rank, precision, name, replace = values
    problems = name_problems(name := str(name or "").strip())
    path = None
    try:
        path = check_lora(context, str(lora or ""))
    except UserError as error:
        problems += error.problems
    if problems:
        return Order([], "", problems=problems)
    out = context.workspace.models_dir / (name if form == "peft" else f"{name}.safetensors")
    command = ["convert", "--lora", str(path), "--to", form, "--out", str(out)]
    if rank:
        command += ["--rank", str(int(rank))]
    if precision:
        command += ["--save-precision", precision]
    return Order([*command, *(["--overwrite"] if replace else [])], f"Convert {name}", out, bool(replace))


def plan(context: AppContext, *values: Any) -> str:
    """HTML of what will happen."""
    lora, form = values[:2]
    if not lora:
        return ""
    try:
        contents = plans.contents_of(check_lora(context, str(lora)))
    except UserError as error:
        return plans.refused(error)
    facts = [
        ("Now", f"{contents.naming} names, {' and '.join(contents.kinds)}, {len(contents.layers)} layers"),
        ("Then", f"{form} names"),
    ]
    if contents.unknown:
        facts.append(("Not understood", f"{len(contents.unknown)} tensors, such as {contents.unknown[0]}"))
    return plans.plan_html([plans.facts(facts)])


def report(result: dict[str, Any]) -> str:
    """What the finished command answered, what could not be carried over, and the error where there is one."""
    rows = [("Names", f"{result['from']} → {result['to']}"), ("Layers", str(result["layers"]))]
    rows += [("Lost" if note["lost"] else "Note", str(note["message"])) for note in result["notes"]]
    return saved({"out": ", ".join(map(str, result["files"]))}, rows) + _errors(result.get("error") or {})


def _errors(error: dict[str, Any]) -> str:
    """How much of each layer a lower rank leaves out, where factors were found anew."""
    layers = sorted(error.get("layers") or [], key=lambda row: -row["error"])
    if not layers:
        return ""
    lines = [(row["layer"], str(row["rank"]), f"{row['error']:.2%}") for row in layers]
    listing = plans.table(("Layer", "Rank", "Missing of the norm"), lines)
    return f'<div class="inspection"><details><summary>Error by layer</summary>{listing}</details></div>'
