"""Having captions written: a captioner with its own options, and what goes around its text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.captioners import CAPTIONERS
from trainer.errors import UserError
from ui.dataset.board import QUICK, Board
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.fields import choice, folded, switch, text
from ui.fields import Field, fields_of
from ui.form import make_component


@dataclass(frozen=True)
class CaptionOrder:
    """What is asked of a caption job: a captioner, its options, and the words around its text."""

    captioner: str
    options: dict[str, Any] = field(default_factory=dict)
    trigger: str = ""
    prefix: str = ""
    suffix: str = ""
    overwrite: bool = False


def build(desk: DatasetDesk, board: Board) -> None:
    """Lay the panel out and wire it."""
    first = next(iter(CAPTIONERS))
    with folded("Write captions automatically", "dataset-captions"):
        with gr.Column(elem_classes=["fields"]):
            kinds = [(kind.label, name) for name, kind in CAPTIONERS.items()]
            captioner = choice("Captioner", "captioner", kinds, first, CAPTIONERS[first].about)
        parts = {name: _options(name, visible=name == first) for name in CAPTIONERS}
        with gr.Column(elem_classes=["fields"]):
            trigger = text("Trigger word", "captioner-trigger", "Put first in every caption.")
            prefix = text("Text in front", "captioner-prefix")
            suffix = text("Text behind", "captioner-suffix")
        info = "Off: only pictures without a caption get one. Either way, undo brings the old captions back."
        overwrite = switch("Replace captions that are there", "captioner-overwrite", False, info)
        with gr.Row(elem_classes=["actions"]):
            start = gr.Button("Write captions", variant="primary", elem_id="captioner-start", elem_classes=["fit"])

    def describe(chosen: str) -> list[Any]:
        shown = [gr.update(visible=name == chosen) for name in parts]
        return [gr.update(info=CAPTIONERS[chosen].about), *shown]

    columns = [column for column, _ in parts.values()]
    components = [component for _, fields in parts.values() for component, _ in fields]

    def order(view: View, *values: Any) -> None:
        chosen, trigger, prefix, suffix, overwrite, *shown = values
        options = _chosen_options(chosen, parts, shown)
        order_captions(desk, view, CaptionOrder(chosen, options, trigger, prefix, suffix, overwrite))

    captioner.input(describe, captioner, [captioner, *columns], queue=False, **QUICK)
    desk.tells("caption", report)
    board.start(start, order, [captioner, trigger, prefix, suffix, overwrite, *components])


_Part = tuple[gr.Column, list[tuple[Any, Field]]]


def _options(name: str, *, visible: bool) -> _Part:
    """The fields of one captioner's options."""
    with gr.Column(visible=visible, elem_classes=["fields"]) as column:
        fields = fields_of(CAPTIONERS[name].options, f"captioner.{name}.")
        return column, [(make_component(field), field) for field in fields]


def _chosen_options(chosen: str, parts: dict[str, _Part], shown: list[Any]) -> dict[str, Any]:
    """The options of the chosen captioner as plain values; ``shown`` is what the fields of all of them hold."""
    values = iter(shown)
    read = {
        name: {field.name.rpartition(".")[2]: field.read(next(values)) for _, field in fields}
        for name, (_, fields) in parts.items()
    }
    return read[chosen]


def order_captions(desk: DatasetDesk, view: View, order: CaptionOrder) -> None:
    """Start a caption job on the open folder. Raises UserError for wrong options, and while a job is running."""
    if order.captioner not in CAPTIONERS:
        raise UserError("caption.unknown", "No captioner is chosen.", "Choose one.", "captioner")
    options = CAPTIONERS[order.captioner].parse(order.options).model_dump(exclude_defaults=True)
    model = str(options.get("model", ""))
    if model and Path(model).expanduser().exists():
        options["model"] = str(desk.context.allowed(model))
    texts = {"trigger": order.trigger, "prefix": order.prefix, "suffix": order.suffix}
    arguments = [f"--captioner={order.captioner}", f"--workspace={desk.workspace.dir}"]
    arguments += [f"--set={name}={_as_yaml(value)}" for name, value in options.items()]
    arguments += [f"--{name}={words}" for name, words in texts.items() if words.strip()]
    arguments += ["--overwrite"] if order.overwrite else []
    desk.start(view, ["caption"], "Captions for", arguments)


def _as_yaml(value: Any) -> str:
    return json.dumps(value)  # JSON is YAML, on one line


def report(result: dict[str, Any]) -> str:
    """What a caption job answered, in a sentence."""
    return f"{result['written']} captions written, {result['kept']} pictures already had one."
