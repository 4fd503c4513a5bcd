"""The Merge tool's live picture: what the chosen LoRAs give together, before anything is saved."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.pictures import PictureSettings
from trainer.runs.settings import read_settings
from trainer.sampler_names import SAMPLER_NAMES
from trainer.studio import Studio
from ui.context import AppContext
from ui.lora_choices import RowUse, known_models
from ui.lora_rows import LoraRows
from ui.lora_tools.merge_memory import EXAMPLE_PROMPT, FIRST_LOOK, MergeMemory
from ui.lora_tools.merge_orders import fields_of, how_of, merge_of
from ui.lora_tools.merging import MergeForm, last_updates
from ui.lora_tools.panel import FIELD
from ui.lora_tools.preview_desk import PreviewDesk
from ui.scripted import scripted
from ui.wiring import EVERY_TIME, QUIET

MOVED = "(stage, ...values) => [{ ...stage, moved: JSON.stringify(values), at: performance.now() }]"
"""Hands the values of sliders and fields to the stage, in the browser: an event with the server would cost time."""


@dataclass(frozen=True)
class Look:
    """The fields that decide how the preview is drawn."""

    model: gr.Dropdown
    seed: gr.Number
    sampler: gr.Dropdown
    steps: gr.Slider
    guidance: gr.Slider
    size: gr.Number
    negative: gr.Textbox

    @property
    def fields(self) -> list[Any]:
        """In the order in which ``settings_of`` takes their values."""
        return [self.model, self.seed, self.sampler, self.steps, self.guidance, self.size, self.negative]

    @property
    def moves(self) -> list[Any]:
        """The events after which the picture is another one."""
        released = [self.steps.release, self.guidance.release]
        chosen = [self.model.input, self.sampler.input, self.seed.input, self.size.input]
        return [*chosen, *released, self.negative.submit, self.negative.blur]


def settings_of(
    model: Any, seed: Any, sampler: Any, steps: Any, guidance: Any, size: Any, negative: Any
) -> dict[str, Any]:
    """The fields' values by the names of ``PictureSettings``."""
    return {
        "model": str(model or ""),
        "seed": seed or 0,
        "sampler": sampler,
        "steps": steps,
        "guidance": guidance,
        "width": size or None,
        "height": size or None,
        "negative": negative or "",
    }


def look_values(settings: PictureSettings) -> list[Any]:
    """Values of ``Look.fields`` that say these settings."""
    looked = [settings.model, settings.seed, settings.sampler, settings.steps, settings.guidance]
    return [*looked, settings.width, settings.negative]


def look_fields(context: AppContext) -> Look:
    """Lay out the fields."""
    with gr.Column(elem_classes=["card"]):
        with gr.Column(elem_classes=["fields"]):
            model = gr.Dropdown(
                known_models(context.workspace),
                value=FIRST_LOOK["model"],
                label="Model",
                allow_custom_value=True,
                elem_id="merge-model",
                **FIELD,
            )
            seed = gr.Number(FIRST_LOOK["seed"], label="Seed", precision=0, minimum=0, elem_id="merge-seed", **FIELD)
        with gr.Accordion("How the preview is drawn", open=False), gr.Column(elem_classes=["fields"]):
            return Look(model, seed, **_drawing_fields())


def _drawing_fields() -> dict[str, Any]:
    return {
        "sampler": gr.Dropdown(
            [(shown, name) for name, shown in SAMPLER_NAMES.items()],
            value=FIRST_LOOK["sampler"],
            label="Sampler",
            filterable=False,
            elem_id="merge-sampler",
            **FIELD,
        ),
        "steps": gr.Slider(
            1, 50, value=FIRST_LOOK["steps"], step=1, label="Steps", buttons=[], elem_id="merge-steps", **FIELD
        ),
        "guidance": gr.Slider(
            0,
            20,
            value=FIRST_LOOK["guidance"],
            step=0.5,
            label="Guidance",
            buttons=[],
            elem_id="merge-guidance",
            **FIELD,
        ),
        "size": gr.Number(
            None, label="Size", info="Empty: the model's own.", precision=0, elem_id="merge-size", **FIELD
        ),
        "negative": gr.Textbox("", label="Not in the picture", max_lines=1, elem_id="merge-negative", **FIELD),
    }


class Preview:
    """The prompts and their pictures, and the slider moves that lead to them.

    Attributes:
        stage: shows prompts and pictures; asks the studio by itself.
        ask: keyword arguments of the event that draws what sliders and fields say, to be chained with ``.then``.
    """

    def __init__(self, context: AppContext, rows: LoraRows, look: Look, form: MergeForm, memory: MergeMemory) -> None:
        studio = Studio(context.workspace, read_settings(context.workspace).studio_idle_minutes)
        self._context, self._rows, self._look, self._form, self._memory = context, rows, look, form, memory
        self.stage = scripted(
            "merge-pair",
            css=["merge/stage"],
            js=["dataset/dom", "merge/compare", "merge/stage"],
            value=_prompts(EXAMPLE_PROMPT),
            asks=[self._asking(PreviewDesk(context, studio))],
        )
        self.ask: dict[str, Any] = {
            "fn": None,
            "inputs": [self.stage, *rows.components, *look.fields, form.as_saved, *form.fields],
            "outputs": self.stage,
            "js": MOVED,
            **QUIET,
        }

    def wire(self) -> None:
        """Each move asks for the pictures of the newest position, which ends those before."""
        gr.on([*self._rows.moves, *self._look.moves, *self._form.moves], **self.ask, **EVERY_TIME)
        for changed in self._rows.changed:
            changed.then(**self.ask)

    @property
    def kept(self) -> list[Any]:
        """The outputs of ``show_last``."""
        return [*self._rows.outputs, *self._look.fields, *self._form.kept, self.stage]

    @property
    def filled(self) -> list[Any]:
        """The outputs of ``use_lora``."""
        return [*self._rows.outputs, self._look.model, self.stage]

    def show_last(self) -> list[Any] | None:
        """Updates of ``kept`` that show all as it was last used, with the pictures; None where it never was."""
        last = self._memory.last()
        if last is None:
            return None
        look, form = look_values(last.settings), last_updates(last)
        models = gr.update(value=look[0], choices=known_models(self._context.workspace))
        how = [last.as_saved, *fields_of(last.how)]
        moved = json.dumps([*self._rows.values(last.uses), *look, *how], separators=(",", ":"))
        stage = {**_prompts(*last.prompts), "kept": moved, "request": last.request, "sum": last.sum}
        return [*self._rows.show(last.uses), models, *look[1:], *form, stage]

    def use_lora(self, lora: Path, model: str, settings: PictureSettings | None) -> list[Any]:
        """Put a LoRA, trained on ``model``, into the first row, with the prompt of these settings."""
        models = gr.update(value=model, choices=known_models(self._context.workspace))
        prompts = gr.skip() if settings is None else _prompts(settings.prompt)
        return [*self._rows.show([RowUse(str(lora), 1.0)]), models, prompts]

    def _asking(self, desk: PreviewDesk) -> Callable[[Any], dict[str, Any]]:
        """What the stage asks: ``values`` of rows and fields, and ``prompts``."""
        in_rows, of_look = len(self._rows.components), len(self._look.fields)

        def ask(asked: Any) -> dict[str, Any]:
            values, prompts = list(asked["values"]), [str(prompt) for prompt in asked["prompts"]]
            look = settings_of(*values[in_rows : in_rows + of_look])
            as_saved, *how = values[in_rows + of_look :]
            uses = self._rows.read(values[:in_rows])
            try:
                merge = merge_of(self._context, how, look["model"], uses) if as_saved and uses else None
                if merge is not None and not merge.is_exact:
                    answer = desk.ask_as_saved(merge, look, prompts)
                else:
                    answer = desk.ask(uses, look, prompts)
            except UserError as error:
                answer = {"problems": [str(problem) for problem in error.problems]}
            self._keep(uses, look, prompts, bool(as_saved), how, answer)
            return answer

        return ask

    def _keep(
        self,
        uses: Sequence[RowUse],
        look: Mapping[str, Any],
        prompts: Sequence[str],
        as_saved: bool,
        how: Sequence[Any],
        answer: Mapping[str, Any],
    ) -> None:
        """Remember what was asked, and for a reloaded page what came of it."""
        asked = {name: answer.get(name, "") for name in ("request", "sum")}
        with suppress(ValueError):  # half-typed numbers
            self._memory.keep(uses, look, prompts=list(prompts), as_saved=as_saved, how=how_of(how), **asked)


def _prompts(*prompts: str) -> dict[str, Any]:
    """The stage's value that shows these prompts."""
    return {"prompts": prompts, "sent": time.time_ns()}
