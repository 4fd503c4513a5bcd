"""The form of the Generate tab: its fields, and settings in and out of them without loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from trainer.config import CaptionLength, options
from trainer.sampler_names import SAMPLER_NAMES, SCHEDULE_NAMES, Sampler, schedules_of
from ui.context import AppContext
from ui.generate.desk import LastUse
from ui.generate.hints import SizeHints, WordHints
from ui.generate.source import SOURCE_FIELDS, SourcePanel
from ui.lora_choices import RowUse, known_models
from ui.lora_rows import LoraRows
from ui.wiring import LAST_COUNTS, QUIET

_FIELD: dict[str, Any] = {"interactive": True, "elem_classes": ["field"]}
_RANGES = {"steps": (1, 100), "guidance": (0, 20), "count": (1, 16), "batch_size": (1, 8)}
"""What the sliders span; they grow for a picture that was made with more."""


class Form:
    """All that decides what is drawn.

    Attributes:
        loras: the rows of LoRAs.
        fields: the settings that are one component each, by their names in PictureSettings.
        new_seed: whether each request gets a seed of its own.
        source: the picture to start from, its mask, and the second pass.
    """

    def __init__(self, context: AppContext) -> None:
        """Lay the form out."""
        self._context = context
        self.fields: dict[str, Any] = {}
        with gr.Column(elem_classes=["card", "stack"]):
            self._texts()
        with gr.Column(elem_classes=["card"]):
            self.loras = LoraRows(context, "generate", "Weight", offers_model=True)
            self._words = WordHints(context)
        with gr.Column(elem_classes=["card"]):
            self._usual()
            with gr.Accordion("More settings", open=False), gr.Column(elem_classes=["fields"]):
                self._rare()
        self.source = SourcePanel(context)
        self._wire()

    @property
    def inputs(self) -> list[Any]:
        """What ``read`` is given."""
        return [*self.fields.values(), self.new_seed, self.source.panel, *self.loras.components]

    @property
    def outputs(self) -> list[Any]:
        """What ``show`` fills."""
        return [*self.fields.values(), self.new_seed, self.source.panel, *self.loras.outputs]

    def read(self, values: Sequence[Any]) -> tuple[dict[str, Any], list[RowUse], bool]:
        """What the fields say, by the names of PictureSettings; the rows of LoRAs; whether seeds are drawn."""
        count = len(self.fields)
        given = {name: value for name, value in zip(self.fields, values[:count], strict=True) if value is not None}
        given |= self.source.read(values[count + 1])
        return given, self.loras.read(values[count + 2 :]), bool(values[count])

    def show(self, last: LastUse, loras: Sequence[RowUse] | None = None) -> list[Any]:
        """Updates of ``outputs`` that show settings, with other LoRAs than theirs where some are given."""
        settings = last.settings.model_dump()
        rows = loras if loras is not None else [RowUse(use.path, use.weight, use.parts) for use in last.settings.loras]
        values = {name: settings[name] for name in self.fields}
        values["seed"] = str(settings["seed"])
        values["model"] = gr.update(value=settings["model"], choices=known_models(self._context.workspace))
        values["schedule"] = _fitting(last.settings.sampler, last.settings.schedule)
        for name, (_, most) in _RANGES.items():
            values[name] = gr.update(value=settings[name], maximum=max(most, settings[name]))
        source = {name: settings[name] for name in SOURCE_FIELDS}
        return [*values.values(), last.new_seed, self.source.shown(source), *self.loras.show(rows)]

    def _texts(self) -> None:
        self.fields["prompt"] = gr.Textbox(
            label="Prompt", lines=3, placeholder="a red star on a blue background", elem_id="generate-prompt", **_FIELD
        )
        self.fields["negative"] = gr.Textbox(label="Not in the picture", lines=1, elem_id="generate-negative", **_FIELD)

    def _usual(self) -> None:
        with gr.Column(elem_classes=["fields"]):
            self.fields["model"] = gr.Dropdown(
                known_models(self._context.workspace),
                value="demo",
                label="Model",
                allow_custom_value=True,
                elem_id="generate-model",
                **_FIELD,
            )
            self.fields["count"] = self._slider("count", "Pictures", 1, 1)
            self.fields["width"] = self._size("width", "Width")
            self.fields["height"] = self._size("height", "Height")
        self._sizes = SizeHints(self._context)
        with gr.Column(elem_classes=["fields"]):
            self.fields["steps"] = self._slider("steps", "Steps", 20, 1)
            self.fields["guidance"] = self._slider("guidance", "Guidance", 7, 0.5)
            self.fields["sampler"] = gr.Dropdown(
                [(shown, name) for name, shown in SAMPLER_NAMES.items()],
                value="ddim",
                label="Sampler",
                filterable=False,
                elem_id="generate-sampler",
                **_FIELD,
            )
            self.fields["schedule"] = gr.Dropdown(
                _schedules("ddim"),
                value="model",
                label="Schedule",
                info="At which noise levels the steps are taken.",
                filterable=False,
                elem_id="generate-schedule",
                **_FIELD,
            )
            # a text: the browser would round numbers of more than 53 bits
            self.fields["seed"] = gr.Textbox("42", label="Seed", max_lines=1, elem_id="generate-seed", **_FIELD)
            self.new_seed = gr.Checkbox(
                True,
                label="A new seed each time",
                info="Off: the seed is kept, and the same settings give the same picture.",
                elem_id="generate-new-seed",
                **_FIELD,
            )

    def _rare(self) -> None:
        self.fields["clip_skip"] = gr.Slider(
            1, 12, value=1, step=1, label="Clip skip", buttons=[], elem_id="generate-clip-skip", **_FIELD
        )
        self.fields["max_token_length"] = gr.Dropdown(
            list(options(CaptionLength)),
            value=75,
            label="Prompt length",
            info="Tokens that are read; more than 75 in chunks.",
            filterable=False,
            elem_id="generate-max-token-length",
            **_FIELD,
        )
        self.fields["weighted"] = gr.Checkbox(
            False,
            label="Weighted prompt",
            info="Read (word:1.3), (word) and [word] as emphasis.",
            elem_id="generate-weighted",
            **_FIELD,
        )
        self.fields["tiled_decoding"] = gr.Checkbox(
            False,
            label="Decode in tiles",
            info="Large pictures take less memory, and look a little different. Done unasked where memory is short.",
            elem_id="generate-tiled-decoding",
            **_FIELD,
        )
        self.fields["batch_size"] = self._slider(
            "batch_size", "Drawn at once", 1, 1, info="More is faster on a GPU, and takes more of its memory."
        )

    def _slider(self, name: str, label: str, value: float, step: float, info: str | None = None) -> gr.Slider:
        least, most = _RANGES[name]
        elem_id = f"generate-{name.replace('_', '-')}"
        return gr.Slider(
            least, most, value=value, step=step, label=label, info=info, buttons=[], elem_id=elem_id, **_FIELD
        )

    def _size(self, name: str, label: str) -> gr.Number:
        return gr.Number(None, label=label, precision=0, elem_id=f"generate-{name}", **_FIELD)

    def _wire(self) -> None:
        sampler, schedule = self.fields["sampler"], self.fields["schedule"]
        sampler.input(_fitting, [sampler, schedule], schedule, **QUIET, **LAST_COUNTS)
        self._words.follow(self.loras.files)
        self._sizes.follow(self.fields["model"])
        self.loras.hub.panel.use_model(self.loras.hub.model_of, None, self.fields["model"], **QUIET)


def _schedules(sampler: Sampler) -> list[tuple[str, str]]:
    return [(SCHEDULE_NAMES[name], name) for name in schedules_of(sampler)]


def _fitting(sampler: Sampler, schedule: str) -> Any:
    """The schedules that a sampler follows; the one in use where it is among them."""
    kept = schedule if schedule in schedules_of(sampler) else "model"
    return gr.update(choices=_schedules(sampler), value=kept)
