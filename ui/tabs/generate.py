"""The Generate tab: a prompt, LoRAs with weights, the usual settings, and the pictures they give."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.config import CaptionLength, options
from trainer.errors import UserError
from trainer.pictures import PictureSettings, parse_settings, read_picture
from trainer.runs.settings import read_settings as read_app_settings
from trainer.sampler_names import SAMPLER_NAMES, SCHEDULE_NAMES, Sampler, schedules_of
from trainer.studio import Studio
from ui import picture_html
from ui.context import AppContext
from ui.dataset.board import sent
from ui.generate.album import Album
from ui.generate.desk import GenerateDesk, LastUse
from ui.generate.history import History
from ui.grids.panel import GridPanel
from ui.lora_choices import RowUse, check_loras, check_model, known_models, named_loras, named_model
from ui.lora_rows import LoraRows
from ui.messages import tells_problems
from ui.scripted import kept
from ui.theme import asset

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
TELLING: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
"""For handlers that may raise: Gradio shows what went wrong only for events that go through its queue."""
UseLora = Callable[[Path, str, PictureSettings | None], list[Any]]
NOTHING_YET = '<div class="blank low">Your pictures appear here.</div>'


@dataclass(frozen=True)
class GenerateTab:
    """What other tabs use.

    Attributes:
        use_lora: handler that sets the form up for a LoRA file, trained on ``model``, with a prompt to start from.
        filled: its outputs.
        grids: the panel for grids.
    """

    use_lora: UseLora
    filled: list[Any]
    grids: GridPanel


@dataclass(frozen=True)
class _Form:
    prompt: gr.Textbox
    negative: gr.Textbox
    loras: LoraRows
    model: gr.Dropdown
    width: gr.Number
    height: gr.Number
    steps: gr.Slider
    guidance: gr.Slider
    sampler: gr.Dropdown
    schedule: gr.Dropdown
    count: gr.Slider
    seed: gr.Number
    new_seed: gr.Checkbox
    clip_skip: gr.Slider
    max_token_length: gr.Dropdown
    weighted: gr.Checkbox

    @property
    def plain(self) -> list[Any]:
        """The fields that are one component each, in the order of ``_NAMES``, and whether seeds are drawn."""
        sizes = [self.width, self.height, self.steps, self.guidance]
        return [
            self.prompt,
            self.negative,
            self.model,
            *sizes,
            self.sampler,
            self.schedule,
            self.count,
            self.seed,
            self.clip_skip,
            self.max_token_length,
            self.weighted,
            self.new_seed,
        ]

    @property
    def inputs(self) -> list[Any]:
        return [*self.plain, *self.loras.components]

    @property
    def outputs(self) -> list[Any]:
        return [*self.plain, *self.loras.outputs]


_NAMES = (
    "prompt",
    "negative",
    "model",
    "width",
    "height",
    "steps",
    "guidance",
    "sampler",
    "schedule",
    "count",
    "seed",
    "clip_skip",
    "max_token_length",
    "weighted",
)


@dataclass(frozen=True)
class _Side:
    generate: gr.Button
    cancel: gr.Button
    status: gr.HTML
    result: gr.HTML
    open: gr.UploadButton
    seen: gr.HTML
    found: gr.Textbox
    """What a handler that may fail hands on: Gradio marks the outputs of a failed one as wrong."""

    @property
    def polled(self) -> list[Any]:
        return [self.seen, self.status, self.result, self.cancel]


def build(context: AppContext) -> GenerateTab:
    """Lay the tab out and wire it."""
    with gr.Row(elem_classes=["two-columns"]):
        with gr.Column(scale=4, elem_classes=["main-column"]):
            form = _form(context)
        with gr.Column(scale=5, min_width=320, elem_classes=["side"]):
            album = Album(context.workspace)
            side = _side()
            grids = GridPanel(context, _studio(context))
            history = History(context, album)
    handlers = GenerateHandlers(context, form, album)
    grids.wire(form.inputs, handlers.read)
    context.page.poll(handlers.poll, [side.seen], side.polled)
    context.page.load(lambda: handlers.show_last(), outputs=form.outputs)
    form.sampler.input(_fitting, [form.sampler, form.schedule], form.schedule, **QUIET)
    refresh: dict[str, Any] = {"fn": handlers.refresh_now, "inputs": side.seen, "outputs": side.polled, **QUIET}
    for event in (side.generate.click, form.prompt.submit):
        asked = event(handlers.generate, form.inputs, side.found, **TELLING)
        asked.success(lambda seed: int(seed), side.found, form.seed, **QUIET).then(**refresh)
    side.cancel.click(handlers.cancel, None, None, **TELLING).then(**refresh)
    opened = side.open.upload(handlers.open_picture, side.open, side.found, **TELLING)
    picked = history.panel.pick(handlers.pick, None, side.found, **TELLING)
    cell = grids.sheet.use(grids.use_cell, None, side.found, **TELLING)
    for found in (opened, picked, cell):
        found.success(handlers.show_found, side.found, form.outputs, **QUIET)
    picked.then(**refresh)
    return GenerateTab(handlers.use_lora, form.outputs, grids)


def _studio(context: AppContext) -> Studio:
    return Studio(context.workspace, read_app_settings(context.workspace).studio_idle_minutes)


def _form(context: AppContext) -> _Form:
    field: dict[str, Any] = {"interactive": True, "elem_classes": ["field"]}
    with gr.Column(elem_classes=["card", "stack"]):
        prompt = gr.Textbox(
            label="Prompt", lines=3, placeholder="a red star on a blue background", elem_id="generate-prompt", **field
        )
        negative = gr.Textbox(label="Not in the picture", lines=1, elem_id="generate-negative", **field)
    with gr.Column(elem_classes=["card"]):
        loras = LoraRows(context, "generate", "Weight")
    with gr.Column(elem_classes=["card"]):
        with gr.Column(elem_classes=["fields"]):
            model = gr.Dropdown(
                known_models(context.workspace),
                value="demo",
                label="Model",
                allow_custom_value=True,
                elem_id="generate-model",
                **field,
            )
            count = gr.Slider(1, 16, value=1, step=1, label="Pictures", buttons=[], elem_id="generate-count", **field)
            steps = gr.Slider(1, 100, value=20, step=1, label="Steps", buttons=[], elem_id="generate-steps", **field)
            guidance = gr.Slider(
                0, 20, value=7, step=0.5, label="Guidance", buttons=[], elem_id="generate-guidance", **field
            )
            seed = gr.Number(42, label="Seed", precision=0, minimum=0, elem_id="generate-seed", **field)
            new_seed = gr.Checkbox(True, label="A new seed each time", elem_id="generate-new-seed", **field)
        with gr.Accordion("More settings", open=False), gr.Column(elem_classes=["fields"]):
            more = _more_settings(field)
    return _Form(
        prompt=prompt,
        negative=negative,
        loras=loras,
        model=model,
        steps=steps,
        guidance=guidance,
        count=count,
        seed=seed,
        new_seed=new_seed,
        **more,
    )


def _more_settings(field: dict[str, Any]) -> dict[str, Any]:
    return {
        "sampler": gr.Dropdown(
            [(shown, name) for name, shown in SAMPLER_NAMES.items()],
            value="ddim",
            label="Sampler",
            filterable=False,
            elem_id="generate-sampler",
            **field,
        ),
        "schedule": gr.Dropdown(
            _schedules("ddim"),
            value="model",
            label="Schedule",
            info="At which noise levels the steps are taken.",
            filterable=False,
            elem_id="generate-schedule",
            **field,
        ),
        "width": gr.Number(
            None, label="Width", info="Empty: the model's own.", precision=0, elem_id="generate-width", **field
        ),
        "height": gr.Number(
            None, label="Height", info="Empty: the model's own.", precision=0, elem_id="generate-height", **field
        ),
        "clip_skip": gr.Slider(
            1, 12, value=1, step=1, label="Clip skip", buttons=[], elem_id="generate-clip-skip", **field
        ),
        "max_token_length": gr.Dropdown(
            list(options(CaptionLength)),
            value=75,
            label="Prompt length",
            info="Tokens that are read; more than 75 in chunks.",
            filterable=False,
            elem_id="generate-max-token-length",
            **field,
        ),
        "weighted": gr.Checkbox(
            False,
            label="Weighted prompt",
            info="Read (word:1.3), (word) and [word] as emphasis.",
            elem_id="generate-weighted",
            **field,
        ),
    }


def _schedules(sampler: Sampler) -> list[tuple[str, str]]:
    return [(SCHEDULE_NAMES[name], name) for name in schedules_of(sampler)]


def _fitting(sampler: Sampler, schedule: str) -> Any:
    """The schedules that a sampler follows; the one in use where it is among them."""
    kept = schedule if schedule in schedules_of(sampler) else "model"
    return gr.update(choices=_schedules(sampler), value=kept)


def _side() -> _Side:
    with gr.Column(elem_classes=["card"]):
        with gr.Row(elem_classes=["actions"]):
            generate = gr.Button("Generate", variant="primary", elem_id="generate")
            cancel = gr.Button("Cancel", visible=False, elem_id="generate-cancel")
        status = gr.HTML("", padding=False, elem_id="generate-status")
        result = gr.HTML(NOTHING_YET, padding=False, elem_id="generate-result", js_on_load=asset("pictures.js"))
    with gr.Row(elem_classes=["actions"]):
        opened = gr.UploadButton(
            "Read the settings of a picture",
            size="sm",
            file_types=["image"],
            elem_id="generate-open",
            scale=0,
            min_width=230,
        )
    seen, found = kept(), gr.Textbox("", visible=False)
    return _Side(generate, cancel, status, result, opened, seen, found)


class GenerateHandlers:
    """What happens on the tab."""

    def __init__(self, context: AppContext, form: _Form, album: Album) -> None:
        self._context = context
        self._workspace = context.workspace
        self._form = form
        self._album = album
        self._desk = GenerateDesk(_studio(context))

    @tells_problems
    def generate(self, *values: Any) -> str:
        """Ask for pictures; returns the seed that is used."""
        settings = self.read(values)
        if not settings.prompt.strip():
            raise UserError("generate.prompt", "The prompt is empty.", "Say what to draw.", "prompt")
        return str(self._desk.ask(settings, new_seed=bool(values[len(self._form.plain) - 1])).seed)

    def read(self, values: Sequence[Any]) -> PictureSettings:
        """The settings that the form's values make. Raises UserError with everything that is wrong."""
        plain, loras = values[: len(self._form.plain)], values[len(self._form.plain) :]
        given = {name: value for name, value in zip(_NAMES, plain, strict=False) if value is not None}
        given["model"] = check_model(self._context, given.get("model", ""))
        given["loras"] = [use.model_dump() for use in check_loras(self._context, self._form.loras.read(loras))]
        return parse_settings(given)

    @tells_problems
    def cancel(self) -> None:
        self._desk.cancel()

    def poll(self, seen: str) -> list[Any] | None:
        """Status and pictures where they are not what was ``seen``."""
        answer, waiting = self._desk.answer()
        pictures = [] if answer is None else [Path(path) for path in answer.pictures if Path(path).is_file()]
        shown = "" if answer is None else f"{answer.id}-{answer.state}-{answer.step}-{answer.what}-{len(pictures)}"
        now = f"{shown}|{waiting}"
        if now == seen:
            return None
        result = picture_html.grid(self._workspace, pictures, row="result", large=True) if pictures else NOTHING_YET
        return [
            now,
            picture_html.status(answer, waiting),
            result,
            gr.update(visible=waiting > 0),
        ]

    def refresh_now(self, seen: str) -> list[Any]:
        return self.poll(seen) or [gr.skip() for _ in range(4)]

    def show_last(self) -> list[Any]:
        """The form as it was last used."""
        return self._shown(self._desk.last())

    @tells_problems
    def pick(self, event: gr.EventData) -> str:
        """A picture of the wall: its settings for the form; to ``vary`` it, another seed is drawn at once."""
        asked = sent(event, "name", "how")
        settings = parse_settings(self._album.picture(str(asked["name"])).settings)
        vary = asked["how"] == "vary"
        if vary:
            settings = self._desk.ask(settings, new_seed=True)
        return LastUse(settings=settings, new_seed=vary).model_dump_json()

    @tells_problems
    def open_picture(self, path: str) -> str:
        """The settings found in an uploaded picture; what it does not say stays as it was last used."""
        found = read_picture(Path(path))
        loras, missing = named_loras(self._workspace, found.loras)
        model = named_model(self._workspace, found.model)
        named = {"loras": [use.model_dump() for use in loras], **({"model": model} if model else {})}
        last = self._desk.last().settings.model_dump() | {"schedule": "model"}  # it may not go with their sampler
        settings = parse_settings(last | named | found.settings)
        missing += [found.model] if found.model and not model else []
        for words, left_out in (("Not on this machine", missing), ("Not used here", found.unused)):
            if left_out:
                gr.Warning(f"{words}: {html.escape('; '.join(left_out))}", duration=None)
        return LastUse(settings=settings, new_seed="seed" not in found.settings).model_dump_json()

    def show_found(self, found: str) -> list[Any]:
        return self._shown(LastUse.model_validate_json(found))

    @tells_problems
    def use_lora(self, lora: Path, model: str, settings: PictureSettings | None) -> list[Any]:
        chosen = settings or self._desk.last().settings
        chosen = chosen.model_copy(update={"model": model, "loras": []})
        return self._shown(LastUse(settings=chosen, new_seed=True), [RowUse(str(lora), 1.0)])

    def _shown(self, last: LastUse, loras: list[RowUse] | None = None) -> list[Any]:
        values = last.settings.model_dump()
        rows = loras if loras is not None else [RowUse(use.path, use.weight, use.parts) for use in last.settings.loras]
        plain = [values[name] for name in _NAMES]
        plain[_NAMES.index("model")] = gr.update(value=values["model"], choices=known_models(self._workspace))
        plain[_NAMES.index("schedule")] = _fitting(last.settings.sampler, last.settings.schedule)
        return [*plain, last.new_seed, *self._form.loras.show(rows)]
