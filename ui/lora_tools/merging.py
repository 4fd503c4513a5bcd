"""Saving a merge: the form, and how it is wired to what it orders."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.lora.merge_settings import DEFAULT_DENSITY, RANKED, SPARSE, MergeSettings
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.lora_rows import LoraRows
from ui.lora_tools import plans
from ui.lora_tools.desk import ToolDesk
from ui.lora_tools.merge_memory import FIRST_NAME, FIRST_RANK, LastMerge, MergeMemory
from ui.lora_tools.merge_orders import Merge, Target, how_of, merge_of, merge_order, merge_plan, merge_report
from ui.lora_tools.panel import FIELD, PRECISIONS, Panel, output_name, panel, wire
from ui.scripted import kept
from ui.wiring import LAST_COUNTS, QUIET

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


@dataclass(frozen=True)
class MergeForm:
    """The fields of the form, in the order in which ``merge_of`` takes their values.

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
    def kept(self) -> list[Any]:
        """What ``last_updates`` gives values for: not that a file may be replaced, which is said each time."""
        return [*self.how, self.precision, self.name]

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
            name, replace = output_name("merge", FIRST_NAME)
            mode = gr.Dropdown(
                MODES,
                value="exact",
                label="How",
                info="Only the exact sum keeps everything; its rank is the sum of theirs.",
                filterable=False,
                elem_id="merge-mode",
                **FIELD,
            )
            rank = gr.Number(
                FIRST_RANK,
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


def wire_merge(
    context: AppContext, rows: LoraRows, model: gr.Dropdown, form: MergeForm, memory: MergeMemory
) -> ToolDesk:
    """Wire the form to its job; returns what runs it. Whatever changes in the form is kept in ``memory``."""
    desk = ToolDesk(context.workspace, "merge", merge_report)
    count = len(form.fields)

    def read(values: Sequence[Any]) -> Merge:
        return merge_of(context, values[:count], values[count], rows.read(values[count + 1 :]))

    def plan(*values: Any) -> str:
        with suppress(ValueError):  # half-typed numbers
            how, base = how_of(values[:count]), str(values[count] or "")
            memory.keep(rows.read(values[count + 1 :]), {"model": base}, how=how)
        return _guarded_plan(context.workspace, lambda: read(values))

    wire(
        context,
        form.panel,
        desk,
        lambda *values: merge_order(context.workspace, read(values)),
        plan,
        [*form.fields, model, *rows.components],
    )
    for choice in (form.target, form.mode):
        choice.input(_relevant, [form.target, form.mode], form.relevant, **QUIET, **LAST_COUNTS)
    seen = kept()

    def poll(known: str) -> list[Any] | None:
        now = str(desk.lora() or "")
        return None if now == known else [now, gr.update(visible=bool(now))]

    context.page.poll(poll, [seen], [seen, form.panel.after])
    return desk


def last_updates(last: LastMerge) -> list[Any]:
    """Updates of ``MergeForm.kept`` that show the form as it was last used."""
    how = last.how
    settings = MergeSettings(how.mode, how.rank, how.conv_rank, how.density, how.seed)
    return [*how_updates(settings, how.target, as_saved=last.as_saved), how.save_precision, how.name]


def how_updates(settings: MergeSettings, target: Target = "lora", *, as_saved: bool = False) -> list[Any]:
    """Updates of ``MergeForm.how`` that show how a LoRA was merged."""
    density = DEFAULT_DENSITY if settings.density is None else settings.density
    values: list[Any] = [settings.mode, settings.rank or FIRST_RANK, settings.conv_rank or 0, density]
    values += [settings.seed or 0, as_saved]
    shown = _relevant(target, settings.mode)
    return [target, *(update | {"value": value} for update, value in zip(shown, values, strict=True))]


def _relevant(target: str, mode: str) -> list[Any]:
    """Building into a model is always exact; what a mode has no use for is not asked."""
    lora = target == "lora"
    ranked, sparse = lora and mode in RANKED, lora and mode in SPARSE
    shown = (lora, ranked, ranked, sparse, sparse and mode == "dare", lora and mode != "exact")
    return [gr.update(visible=visible) for visible in shown]


def _guarded_plan(workspace: Workspace, read: Any) -> str:
    """The plan, or what is in its way."""
    try:
        return merge_plan(workspace, read())
    except UserError as error:
        return plans.refused(error)
    except ValueError:
        return ""  # half-typed numbers
