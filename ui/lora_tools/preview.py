"""The Merge tool's live picture: what the chosen LoRAs give together, before anything is saved."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.pictures import PictureSettings, parse_settings
from trainer.pictures import read_settings as read_picture
from trainer.runs.settings import read_settings
from trainer.studio import Answer, Studio
from ui import picture_html
from ui.context import AppContext
from ui.lora_choices import RowUse, check_loras, check_model, known_models
from ui.lora_rows import LoraRows
from ui.lora_tools.panel import FIELD, TELLING
from ui.messages import tells_problems
from ui.scripted import kept
from ui.theme import asset

PREVIEW_SECONDS = 300
"""How long one preview is waited for; the first of a large model loads it."""
FIRST_WORDS = "Choose a LoRA and move its slider: the pictures show what it does, before anything is saved."
STAMP = """(_, ...values) => {
  window.atelierPage = window.atelierPage || Math.random().toString(36).slice(2);
  return [`${window.atelierPage}|${performance.now()}`, ...values];
}"""
"""Says which page a move comes from and when it was made: two quick moves may reach the server in either order."""
EXAMPLE_PROMPT = "a red star on a blue background"


@dataclass(frozen=True)
class Look:
    """The fields that decide how the preview is drawn."""

    model: gr.Dropdown
    prompt: gr.Textbox
    seed: gr.Number
    steps: gr.Slider
    guidance: gr.Slider
    size: gr.Number

    @property
    def fields(self) -> list[Any]:
        return [self.model, self.prompt, self.seed, self.steps, self.guidance, self.size]


@dataclass(frozen=True)
class Shown:
    """Where the picture appears."""

    request: gr.HTML
    status: gr.HTML
    pair: gr.HTML


def look_fields(context: AppContext) -> Look:
    """Lay out the fields."""
    with gr.Column(elem_classes=["card"]):
        prompt = gr.Textbox(EXAMPLE_PROMPT, label="Prompt of the preview", elem_id="merge-prompt", **FIELD)
        with gr.Column(elem_classes=["fields"]):
            model = gr.Dropdown(
                known_models(context.workspace),
                value="demo",
                label="Model",
                allow_custom_value=True,
                elem_id="merge-model",
                **FIELD,
            )
            seed = gr.Number(42, label="Seed", precision=0, minimum=0, elem_id="merge-seed", **FIELD)
        with gr.Accordion("How the preview is drawn", open=False), gr.Column(elem_classes=["fields"]):
            steps = gr.Slider(1, 50, value=12, step=1, label="Steps", buttons=[], elem_id="merge-steps", **FIELD)
            guidance = gr.Slider(
                0, 20, value=4, step=0.5, label="Guidance", buttons=[], elem_id="merge-guidance", **FIELD
            )
            size = gr.Number(
                None, label="Size", info="Empty: the model's own.", precision=0, elem_id="merge-size", **FIELD
            )
    return Look(model, prompt, seed, steps, guidance, size)


def shown() -> Shown:
    """Lay out the place of the picture."""
    pair = gr.HTML(
        picture_html.empty_pair(FIRST_WORDS), padding=False, elem_id="merge-pair", js_on_load=asset("pictures.js")
    )
    status = gr.HTML("", padding=False, elem_id="merge-status")
    return Shown(kept(), status, pair)


def wire_preview(
    context: AppContext, rows: LoraRows, look: Look, shown: Shown, handlers: PreviewHandlers
) -> list[dict[str, Any]]:
    """Each move asks for a preview at once, which ends the one before; another event waits for the picture.

    Returns the keyword arguments of the two events, to be chained with ``.then`` after others.
    """
    inputs = [gr.Textbox("", visible=False), *rows.components, *look.fields]
    ask: dict[str, Any] = {"fn": handlers.ask, "inputs": inputs, "outputs": shown.request, "js": STAMP, **TELLING}
    wait: dict[str, Any] = {
        "fn": handlers.wait,
        "inputs": shown.request,
        "outputs": [shown.pair, shown.status],
        "trigger_mode": "multiple",
        **TELLING,
    }
    moves = [slider.input for slider in rows.weights] + [file.input for file in rows.files]
    moves += [event for parts in rows.parts for event in (parts.submit, parts.blur)]
    moves += [look.prompt.submit, look.prompt.blur, look.model.input, look.seed.input, look.size.input]
    moves += [look.steps.release, look.guidance.release]
    gr.on(moves, **ask, trigger_mode="always_last").success(**wait)
    for removed in rows.removed:
        removed.then(**ask).success(**wait)
    status = kept()
    context.page.poll(handlers.poll, [shown.request, status], [status, shown.status])
    return [ask, wait]


class Moves:
    """Knows the newest move of each open page."""

    MOST_PAGES = 100

    def __init__(self) -> None:
        self._newest: dict[str, float] = {}

    def is_news(self, stamp: str) -> bool:
        """Whether no later move of the same page has been seen. A stamp is ``page|milliseconds``."""
        page, _, when = stamp.partition("|")
        try:
            made = float(when)
        except ValueError:
            return True  # not from a page's own script: nothing to compare with
        if made < self._newest.get(page, -math.inf):
            return False
        self._newest[page] = made
        for old in list(self._newest)[: -self.MOST_PAGES]:
            del self._newest[old]
        return True


class PreviewHandlers:
    """What happens when a slider moves."""

    def __init__(self, context: AppContext, rows: LoraRows, look: Look) -> None:
        self._context = context
        self._rows = rows
        self._look = look
        self._studio = Studio(context.workspace, read_settings(context.workspace).studio_idle_minutes)
        self._lock = threading.Lock()
        self._moves = Moves()
        self._newest = ""

    @tells_problems
    def ask(self, stamp: str, *values: Any) -> Any:
        """Ask for the preview of these sliders; returns the request's id, empty where no LoRA is chosen."""
        with self._lock:
            if not self._moves.is_news(stamp):
                return gr.skip()
            settings = self._settings(values)
            self._newest = self._studio.preview(settings, compare=True) if settings else ""
            return self._newest

    def _settings(self, values: Sequence[Any]) -> PictureSettings | None:
        count = len(self._rows.components)
        uses = self._rows.read(values[:count])
        if not uses:
            return None
        model, prompt, seed, steps, guidance, size = values[count:]
        settings = {
            "prompt": prompt or "",
            "model": check_model(self._context, model),
            "loras": [use.model_dump() for use in check_loras(self._context, uses)],
            "seed": seed or 0,
            "steps": steps,
            "guidance": guidance,
            "width": size or None,
            "height": size or None,
            "sampler": "dpmpp_2m",
        }
        return parse_settings(settings)

    def wait(self, request: str) -> list[Any]:
        """The pictures of a request once they are there; nothing where a newer one has taken its place."""
        if not request:
            return [picture_html.empty_pair(FIRST_WORDS), ""]
        answer = self._studio.wait(request, PREVIEW_SECONDS)
        if request != self._newest:
            return [gr.skip(), gr.skip()]
        if answer.state == "done":
            words = _sum_in_words(read_picture(Path(answer.pictures[1])))
            return [picture_html.pair(self._context.workspace, answer, words), picture_html.status(answer)]
        return [gr.skip(), picture_html.status(answer) if answer.state == "failed" else gr.skip()]

    def poll(self, request: str, seen: str) -> list[Any] | None:
        """How far the preview is, for those that take long."""
        if not request:
            return None
        answer = self._answer(request)
        now = "" if answer is None or answer.final else f"{answer.id} {answer.what} {answer.step}"
        if now == seen:
            return None
        return [now, "" if answer is None or answer.state == "cancelled" else picture_html.status(answer)]

    @tells_problems
    def use_lora(self, lora: Path, model: str, settings: PictureSettings | None) -> list[Any]:
        """Put a LoRA, trained on ``model``, into the first row."""
        models = gr.update(value=model, choices=known_models(self._context.workspace))
        look = [gr.skip() for _ in self._look.fields[1:]]
        if settings is not None:
            look[0] = settings.prompt
        return [*self._rows.show([RowUse(str(lora), 1.0)]), models, *look]

    def _answer(self, request: str) -> Answer | None:
        try:
            return self._studio.answer(request)
        except UserError:
            return None


def _sum_in_words(settings: dict[str, Any]) -> str:
    """``neon × 0.8 + robot × -0.3`` of the settings in a picture."""
    return " + ".join(_use_in_words(use) for use in settings.get("loras", []))


def _use_in_words(use: dict[str, Any]) -> str:
    by_part = f" ({use['parts']})" if use.get("parts") else ""
    return f"{Path(use['path']).stem} × {use['weight']:g}{by_part}"
