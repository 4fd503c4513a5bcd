"""Saving a merge: the form, the command it becomes, and what will happen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from pydantic import BaseModel

from trainer.errors import Problem, UserError
from trainer.lora.merge_settings import DEFAULT_DENSITY, RANKED, SPARSE, MergeSettings, Mode
from trainer.pictures import LoraUse
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.lora_choices import RowUse, check_loras, check_model
from ui.lora_rows import LoraRows
from ui.lora_tools import plans
from ui.lora_tools.desk import Order, ToolDesk, name_problems, saved
from ui.lora_tools.panel import FIELD, PRECISIONS, QUIET, Panel, output_name, panel, wire
from ui.scripted import kept

Target = Literal["lora", "file", "folder"]

TARGETS = [
    ("One LoRA file", "lora"),
    ("A model file with them built in", "file"),
    ("A model folder with them built in", "folder"),
]
MODES = [
    ("Exact sum", "exact"),
    ("Reduced to a rank (SVD)", "svd"),
    ("TIES: settle conflicts", "ties"),
    ("DARE: drop and rescale", "dare"),
    ("As sd-scripts does it", "kohya"),
]
DEFAULT_RANK = 16
DORA_HINT = "A DoRA's effect depends on the model it was trained on."


class Merge(BaseModel):
    """What is to be saved. ``is_exact``: it does what the LoRAs do together, but for rounding."""

    loras: list[LoraUse]
    target: Target
    model: str
    mode: Mode = "exact"
    rank: int | None = None
    conv_rank: int | None = None
    density: float | None = None
    seed: int | None = None
    save_precision: str = ""
    name: str
    replace: bool = False

    @property
    def is_exact(self) -> bool:
        return self.target != "lora" or self.mode == "exact"


@dataclass(frozen=True)
class MergeForm:
    """The fields of the form, in the order in which ``read`` takes their values.

    Attributes:
        as_saved: whether the preview shows what the mode keeps, rather than the exact sum.
        try_it: draws with what was saved on the Generate tab.
        use_it: takes it as the only LoRA here.
    """

    target: gr.Dropdown
    mode: gr.Dropdown
    rank: gr.Number
    conv_rank: gr.Number
    density: gr.Slider
    seed: gr.Number
    precision: gr.Dropdown
    name: gr.Textbox
    replace: gr.Checkbox
    as_saved: gr.Checkbox
    panel: Panel
    try_it: gr.Button
    use_it: gr.Button

    @property
    def how(self) -> list[Any]:
        """What ``how_updates`` gives values for."""
        return [self.target, *self.relevant]

    @property
    def relevant(self) -> list[Any]:
        """The fields that are there for some targets and modes only."""
        return [self.mode, self.rank, self.conv_rank, self.density, self.seed, self.as_saved]

    @property
    def moves(self) -> list[Any]:
        """The events after which the preview of what is saved is another one."""
        return [self.as_saved.input, self.mode.input, self.rank.submit, self.rank.blur, self.density.release]

    @property
    def fields(self) -> list[Any]:
        return [
            self.target,
            self.mode,
            self.rank,
            self.conv_rank,
            self.density,
            self.seed,
            self.precision,
            self.name,
            self.replace,
        ]


def merge_form() -> MergeForm:
    """Lay the form out."""
    with gr.Column(elem_classes=["card"]):
        gr.HTML("<h3>Keep it</h3>", padding=False)
        with gr.Column(elem_classes=["fields"]):
            target = gr.Dropdown(
                TARGETS, value="lora", label="Save as", filterable=False, elem_id="merge-target", **FIELD
            )
            name, replace = output_name("merge", "my-merge")
            mode = gr.Dropdown(
                MODES,
                value="exact",
                label="How",
                info="Exact keeps everything; its rank is the sum of theirs.",
                filterable=False,
                elem_id="merge-mode",
                **FIELD,
            )
            rank = gr.Number(
                DEFAULT_RANK,
                label="Rank",
                precision=0,
                minimum=1,
                maximum=1024,
                visible=False,
                elem_id="merge-rank",
                **FIELD,
            )
            conv_rank = gr.Number(
                0,
                label="Rank of 3x3 convolutions",
                info="0: the same.",
                precision=0,
                minimum=0,
                visible=False,
                elem_id="merge-conv-rank",
                **FIELD,
            )
            density = gr.Slider(
                0.05,
                1,
                value=DEFAULT_DENSITY,
                step=0.05,
                label="Density",
                info="Share of each LoRA's changes that is kept.",
                buttons=[],
                visible=False,
                elem_id="merge-density",
                **FIELD,
            )
            seed = gr.Number(0, label="Seed of DARE", precision=0, visible=False, elem_id="merge-dare-seed", **FIELD)
            precision = gr.Dropdown(
                PRECISIONS, value="", label="Number format", filterable=False, elem_id="merge-precision", **FIELD
            )
        as_saved = gr.Checkbox(
            False,
            label="Preview it as it will be saved",
            info="This way of merging may lose something. The picture comes later, as the merge is computed first.",
            visible=False,
            elem_id="merge-as-saved",
            **FIELD,
        )
        try_it = gr.Button("Try it in Generate", elem_id="merge-try", elem_classes=["fit"], render=False)
        use_it = gr.Button("Use it as the LoRA here", elem_id="merge-use", elem_classes=["fit"], render=False)
        shared = panel("merge", "Save", [try_it, use_it])
    return MergeForm(
        target, mode, rank, conv_rank, density, seed, precision, name, replace, as_saved, shared, try_it, use_it
    )


def wire_merge(context: AppContext, rows: LoraRows, model: gr.Dropdown, form: MergeForm) -> ToolDesk:
    """Wire the form to its job; returns what runs it."""
    desk = ToolDesk(context.workspace, "merge", merge_report)
    count = len(form.fields)

    def read(values: Sequence[Any]) -> Merge:
        return merge_of(context, values[:count], values[count], rows.read(values[count + 1 :]))

    wire(
        context,
        form.panel,
        desk,
        lambda *values: merge_order(context.workspace, read(values)),
        lambda *values: _guarded_plan(context.workspace, lambda: read(values)),
        [*form.fields, model, *rows.components],
    )
    for choice in (form.target, form.mode):
        choice.input(
            _relevant,
            [form.target, form.mode],
            form.relevant,
            **QUIET,
        )
    seen = kept()

    def poll(known: str) -> list[Any] | None:
        now = str(desk.lora() or "")
        return None if now == known else [now, gr.update(visible=bool(now))]

    context.page.poll(poll, [seen], [seen, form.panel.after])
    return desk


def merge_of(context: AppContext, values: Sequence[Any], model: Any, uses: Sequence[RowUse]) -> Merge:
    """What the fields of the form say, of the LoRAs in the rows. Raises UserError."""
    target, mode, rank, conv_rank, density, seed, precision, name, replace = values
    return Merge(
        loras=check_loras(context, uses),
        target=target,
        model=check_model(context, model),
        mode=mode,
        rank=rank and int(rank),
        conv_rank=int(conv_rank) if conv_rank else None,
        density=density,
        seed=int(seed or 0),
        save_precision=precision or "",
        name=str(name or "").strip(),
        replace=bool(replace),
    )


def how_updates(settings: MergeSettings) -> list[Any]:
    """Updates of ``MergeForm.how`` that show how a LoRA was merged."""
    density = DEFAULT_DENSITY if settings.density is None else settings.density
    values: list[Any] = [settings.mode, settings.rank or DEFAULT_RANK, settings.conv_rank or 0, density]
    values += [settings.seed or 0, False]
    shown = _relevant("lora", settings.mode)
    return ["lora", *(update | {"value": value} for update, value in zip(shown, values, strict=True))]


def _relevant(target: str, mode: str) -> list[Any]:
    """Building into a model is always exact; what a mode has no use for is not asked."""
    lora = target == "lora"
    ranked, sparse = lora and mode in RANKED, lora and mode in SPARSE
    shown = (lora, ranked, ranked, sparse, sparse and mode == "dare", lora and mode != "exact")
    return [gr.update(visible=visible) for visible in shown]


def out_path(workspace: Workspace, merge: Merge) -> Path:
    """Where the result goes."""
    name = merge.name if merge.target == "folder" else f"{merge.name}.safetensors"
    return workspace.models_dir / name


def merge_order(workspace: Workspace, merge: Merge) -> Order:
    """The job that writes it."""
    out = out_path(workspace, merge)
    problems = [*merge_problems(merge), *name_problems(merge.name)]
    return Order(merge_command(merge, out), f"Merge {merge.name}", out, merge.replace, problems)


def merge_command(merge: Merge, out: Path) -> list[str]:
    """The trainer command that does it."""
    command = ["merge"]
    for use in merge.loras:
        command += ["--lora", f"{use.path}={use.strength}"]
    command += ["--out", str(out)]
    if merge.replace:
        command.append("--overwrite")
    if merge.save_precision:
        command += ["--save-precision", merge.save_precision]
    if merge.target != "lora":
        return [*command, "--base", merge.model]
    command += ["--mode", merge.mode]
    if merge.mode in RANKED:
        command += ["--rank", str(merge.rank)]
        if merge.conv_rank is not None:
            command += ["--conv-rank", str(merge.conv_rank)]
    if merge.mode in SPARSE:
        command += ["--density", f"{merge.density:g}"]
    if merge.mode == "dare":
        command += ["--seed", str(merge.seed)]
    return [*command, "--dora-base", merge.model] if _has_dora(merge) else command


def _has_dora(merge: Merge) -> bool:
    return any("DoRA" in kind for use in merge.loras for kind in plans.contents_of(Path(use.path)).kinds)


def merge_plan(workspace: Workspace, merge: Merge) -> str:
    """HTML of what saving this would do."""
    if not merge.loras:
        return ""
    loras = [plans.planned(use.path, use.strength) for use in merge.loras]
    problems = plans.family_problems(loras)
    if merge.target == "lora":
        result = plans.merged_lora(loras, merge.mode, merge.rank if merge.mode in RANKED else None)
        if _has_dora(merge):
            result.append(("DoRA", f"{DORA_HINT} {merge.model} is used."))
    else:
        result = plans.changed_model(workspace, loras, merge.model)
    out = out_path(workspace, merge)
    if out.exists():
        result.append(("Written to", f"{out.name}, which exists{' and is replaced' if merge.replace else ' already'}"))
    else:
        result.append(("Written to", out.name))
    return plans.plan_html([plans.lora_table(loras), plans.facts(result)], problems)


def _guarded_plan(workspace: Workspace, read: Any) -> str:
    """The plan, or what is in its way."""
    try:
        return merge_plan(workspace, read())
    except UserError as error:
        return plans.refused(error)
    except ValueError:
        return ""  # half-typed numbers


def merge_report(result: dict[str, Any]) -> str:
    """What the finished command answered, and what was left out."""
    rows = [("How", str(result["mode"]))] if "base" not in result else []
    for use in result.get("loras", []):
        if "layers_used" in use:
            rows.append((Path(use["file"]).stem, f"{use['ratio']}, {use['layers_used']} layers"))
    for kind, words in (("left_out", "Not in the model"), ("unknown_keys", "Not understood")):
        found = result.get(kind) or {}
        rows += [(f"{words}: {Path(file).stem}", ", ".join(names[:5])) for file, names in found.items()]
    return saved(result, rows)


def merge_problems(merge: Merge) -> list[Problem]:
    """What speaks against it, the name aside."""
    problems = []
    if not merge.loras:
        problems.append(Problem("merge.no_loras", "No LoRA is chosen.", "Choose one or more.", "loras"))
    if merge.target == "lora" and merge.mode in RANKED and not merge.rank:
        problems.append(Problem("merge.rank", "Rank is empty.", "Give the rank of the result.", "rank"))
    return problems
