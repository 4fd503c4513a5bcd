"""The Resize tool: a LoRA with a smaller rank, and what of it is kept."""

from __future__ import annotations

from typing import Any

import gradio as gr

from trainer.errors import Problem, UserError
from ui.context import AppContext
from ui.lora_choices import check_lora
from ui.lora_tools import plans
from ui.lora_tools.desk import Order, ToolDesk, name_problems, saved
from ui.lora_tools.panel import FIELD, output_name, panel, wire
from ui.lora_tools.pickers import lora_picker
from ui.run_view import file_size
from ui.wiring import QUIET

INTRO = (
    "<h3>A smaller rank</h3><p>Keeps the strongest directions of each layer; the file shrinks with the rank, and its "
    "strength stays.</p>"
)
FIXED = ""
METHODS = [
    ("The same rank everywhere", FIXED),
    ("Smallest singular value, against the largest", "sv_ratio"),
    ("Share of the norm (Frobenius)", "sv_fro"),
    ("Share of the sum of singular values", "sv_cumulative"),
]
PARAM_HINTS = {
    "sv_ratio": "Such as 10: values below a tenth of the largest go.",
    "sv_fro": "Such as 0.9: that share of the norm is kept.",
    "sv_cumulative": "Such as 0.9: that share of the sum is kept.",
}


def build(context: AppContext) -> None:
    """Lay the tool out and wire it."""
    with gr.Column(elem_classes=["card", "tool"]):
        gr.HTML(INTRO, padding=False, elem_classes=["card-title"])
        with gr.Column(elem_classes=["fields"]):
            lora = lora_picker(context, "resize")
            rank = gr.Number(
                8,
                label="Rank",
                info="With a method below: the largest allowed.",
                precision=0,
                minimum=1,
                maximum=1024,
                elem_id="resize-rank",
                **FIELD,
            )
            conv_rank = gr.Number(
                0,
                label="Rank of 3x3 convolutions",
                info="0: the same.",
                precision=0,
                minimum=0,
                elem_id="resize-conv-rank",
                **FIELD,
            )
            method = gr.Dropdown(
                METHODS, value=FIXED, label="Rank of each layer", filterable=False, elem_id="resize-method", **FIELD
            )
            param = gr.Number(0.9, label="Threshold", visible=False, elem_id="resize-param", **FIELD)
            name, replace = output_name("resize", "my-resized")
        shared = panel("resize", "Resize")
    method.change(_param_field, method, param, **QUIET)
    desk = ToolDesk(context.workspace, "resize", report)
    inputs = [lora, rank, conv_rank, method, param, name, replace]
    wire(context, shared, desk, lambda *v: order(context, *v), lambda *v: plan(context, *v), inputs)


def _param_field(method: str) -> Any:
    value = 10 if method == "sv_ratio" else 0.9
    return gr.update(visible=method != FIXED, info=PARAM_HINTS.get(method, ""), value=value)


def order(context: AppContext, *values: Any) -> Order:
    """The job for these values."""
    lora, rank, conv_rank, method, param, name, replace = values
    problems = name_problems(name := str(name or "").strip())
    path = None
    try:
        path = check_lora(context, str(lora or ""))
    except UserError as error:
        problems += error.problems
    if not rank:
        problems.append(Problem("resize.rank", "Rank is empty.", "Give the rank of the result.", "rank"))
    if method and param is None:
        problems.append(Problem("resize.param", "Threshold is empty.", PARAM_HINTS[method], "param"))
    if problems:
        return Order([], "", problems=problems)
    out = context.workspace.models_dir / f"{name}.safetensors"
    command = ["resize", "--lora", str(path), "--rank", str(int(rank)), "--out", str(out)]
    if conv_rank:
        command += ["--conv-rank", str(int(conv_rank))]
    if method:
        command += ["--dynamic", method, "--param", f"{param:g}"]
    return Order([*command, *(["--overwrite"] if replace else [])], f"Resize {name}", out, bool(replace))


def plan(context: AppContext, *values: Any) -> str:
    """HTML of what will happen."""
    lora, rank, conv_rank, method = values[:4]
    if not lora or not rank:
        return ""
    try:
        contents = plans.contents_of(check_lora(context, str(lora)))
    except UserError as error:
        return plans.refused(error)
    smaller = sum((layer.rank or 0) > rank for layer in contents.layers.values())
    convs = f", {int(conv_rank)} for 3x3 convolutions" if conv_rank else ""
    facts = [
        ("Now", f"rank {plans.listed(contents.ranks) or 'full'}, {len(contents.layers)} layers"),
        ("Then", f"rank {'up to ' if method else ''}{int(rank)}{convs}"),
        ("Layers that shrink", f"{smaller} of {len(contents.layers)}" + (", perhaps more" if method else "")),
    ]
    return plans.plan_html([plans.facts(facts)])


def report(result: dict[str, Any]) -> str:
    """What the finished command answered: what is kept, over all and by layer."""
    smaller = f"{file_size(result['size_bytes'])}, was {file_size(result['size_bytes_before'])}"
    rows = [
        ("Size", smaller),
        ("Rank", f"{_ranks(result['ranks'])}, was {_ranks(result['ranks_before'])}"),
        ("Kept of the norm", f"{result['norm_kept']:.2%}; by layer at least {result['norm_kept_smallest']:.2%}"),
    ]
    head = ("Layer", "Rank", "Kept of the norm", "Alpha")
    layers = sorted(result["layers"], key=lambda layer: layer["norm_kept"])
    lines = [
        (
            layer["module"],
            f"{layer['rank_before']} → {layer['rank']}",
            f"{layer['norm_kept']:.2%}",
            f"{layer['alpha']:g}",
        )
        for layer in layers
    ]
    listing = f"<details><summary>By layer, the weakest first</summary>{plans.table(head, lines)}</details>"
    return saved(result, rows) + f'<div class="inspection">{listing}</div>'


def _kept(layer: dict[str, Any]) -> tuple[str, str, str]:
    return f"{layer['rank_before']} → {layer['rank']}", f"{layer['norm_kept']:.2%}", f"{layer['alpha']:g}"


def _ranks(counts: dict[str, int]) -> str:
    return plans.listed(sorted(int(rank) for rank in counts))
