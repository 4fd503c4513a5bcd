"""The Extract tool: the difference of two models as a LoRA."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.errors import Problem, UserError
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.lora_choices import check_model
from ui.lora_tools import plans
from ui.lora_tools.desk import Order, ToolDesk, name_problems, saved
from ui.lora_tools.panel import FIELD, output_name, panel, wire
from ui.lora_tools.pickers import model_picker
from ui.run_view import file_size

INTRO = (
    "<h3>A LoRA out of two models</h3><p>What a tuned model learned beyond its base, as a small file. "
    "Both must be of one family.</p>"
)


def build(context: AppContext) -> None:
    """Lay the tool out and wire it."""
    with gr.Column(elem_classes=["card", "tool"]):
        gr.HTML(INTRO, padding=False, elem_classes=["card-title"])
        with gr.Column(elem_classes=["fields"]):
            base = model_picker(context, "extract-base", "Base model", "demo")
            tuned = model_picker(context, "extract-tuned", "Tuned model", None)
            rank = gr.Number(16, label="Rank", precision=0, minimum=1, maximum=1024, elem_id="extract-rank", **FIELD)
            conv_rank = gr.Number(
                0,
                label="Rank of 3x3 convolutions",
                info="0: these are left out.",
                precision=0,
                minimum=0,
                elem_id="extract-conv-rank",
                **FIELD,
            )
            name, replace = output_name("extract", "my-extract")
        with gr.Accordion("More settings", open=False), gr.Column(elem_classes=["fields"]):
            clamp = gr.Slider(
                0.9,
                1,
                value=0.99,
                step=0.005,
                label="Clamp quantile",
                info="Cuts off the largest values; 1 keeps all.",
                buttons=[],
                elem_id="extract-clamp",
                **FIELD,
            )
            min_diff = gr.Number(
                0,
                label="Minimum difference",
                info="A text encoder that differs by less is left out.",
                elem_id="extract-min-diff",
                **FIELD,
            )
        shared = panel("extract", "Extract")
    desk = ToolDesk(context.workspace, "extract", report)
    inputs = [base, tuned, rank, conv_rank, clamp, min_diff, name, replace]
    wire(context, shared, desk, lambda *v: order(context, *v), lambda *v: plan(context, *v), inputs)


def order(context: AppContext, *values: Any) -> Order:
    """The job for these values. Raises UserError for models that are not there."""
    base, tuned, rank, conv_rank, clamp, min_diff, name, replace = values
    problems = name_problems(name := str(name or "").strip())
    models = []
    for model, field in ((base, "Base model"), (tuned, "Tuned model")):
        try:
            models.append(check_model(context, model or ""))
        except UserError as error:
            problems += [Problem(p.code, f"{field}: {p.message}", p.hint, p.field) for p in error.problems]
    if not rank:
        problems.append(Problem("extract.rank", "Rank is empty.", "Give the rank of the result.", "rank"))
    out = context.workspace.models_dir / f"{name}.safetensors"
    if problems:
        return Order([], "", problems=problems)
    command = ["extract", "--base", models[0], "--tuned", models[1], "--rank", str(int(rank)), "--out", str(out)]
    if conv_rank:
        command += ["--conv-rank", str(int(conv_rank))]
    command += ["--clamp-quantile", f"{clamp:g}", "--min-diff", f"{float(min_diff or 0):g}"]
    return Order([*command, *(["--overwrite"] if replace else [])], f"Extract {name}", out, bool(replace))


def plan(context: AppContext, *values: Any) -> str:
    """HTML of what will happen."""
    base, tuned, rank, conv_rank = values[:4]
    if not tuned or not rank:
        return ""
    rows = []
    for label, model in (("Base", base), ("Tuned", tuned)):
        try:
            size = plans.model_bytes(check_model(context, model or ""))
        except UserError as error:
            return plans.refused(error)
        rows.append((label, str(model), file_size(size) if size is not None else "fetched from the hub"))
    convs = f"3x3 convolutions with rank {int(conv_rank)}" if conv_rank else "3x3 convolutions are left out"
    facts = [("Result", f"rank {int(rank)}, {convs}"), *_space(context.workspace)]
    return plans.plan_html([plans.table(("Model", "Where", "Size"), rows), plans.facts(facts)])


def _space(workspace: Workspace) -> list[tuple[str, str]]:
    return [("Space left", file_size(plans.free_bytes(workspace)))]


def report(result: dict[str, Any]) -> str:
    """What the finished command answered: what the LoRA holds of the difference, and what not."""
    rows = [
        ("Size", file_size(result["size_bytes"])),
        ("Rank", plans.listed(sorted(int(rank) for rank in result["ranks"]))),
        ("Lost in these layers", f"{result['error']:.2%} of the difference"),
    ]
    if result["not_carried"]:
        rows.append(("Lost elsewhere", f"{result['not_carried']:.2%} lies where this LoRA has no layers"))
    if result["unchanged"]:
        rows.append(("Equal in both", f"{len(result['unchanged'])} layers, left out"))
    rows += [
        (f"Left out: {part}", f"nothing changed by more than {most:.3g}") for part, most in result["left_out"].items()
    ]
    layers = sorted(result["layers"], key=lambda layer: layer["norm_kept"])
    lines = [
        (layer["module"], str(layer["rank"]), f"{layer['norm']:.3g}", f"{layer['norm_kept']:.2%}") for layer in layers
    ]
    listing = plans.table(("Layer", "Rank", "Difference", "Kept"), lines)
    folded = f"<details><summary>By layer, the weakest first</summary>{listing}</details>"
    return saved(result, rows) + f'<div class="inspection">{folded}</div>'
