"""Having captions written: a captioner with its own options, which pictures, and what becomes of its texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from trainer.captioners import CAPTIONERS
from trainer.captioners.prompts import TEMPLATES
from trainer.captioners.vision_language import ChatOptions
from trainer.captioners.wording import Wording
from ui.dataset import caption_orders, review
from ui.dataset.board import Board, sent
from ui.dataset.caption_orders import HANDLINGS, TRIED, TRIGGER, CaptionRequest
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.edits import SCOPES
from ui.dataset.fields import FIELD, choice, folded
from ui.fields import Field, fields_of
from ui.form import make_component
from ui.messages import tells_problems
from ui.wiring import TELLING


def build(desk: DatasetDesk, board: Board) -> None:
    """Lay the panel and the list of drafts out and wire them."""
    with folded("Write captions automatically", "dataset-captions"):
        panel = CaptionPanel(board)
        with gr.Row(elem_classes=["actions"]):
            write = gr.Button("Write captions", variant="primary", elem_id="captioner-start", elem_classes=["fit"])
            draft = gr.Button("Draft them, to look over first", elem_id="captioner-draft", elem_classes=["fit"])
            attempt = gr.Button(f"Try on {TRIED} pictures", elem_id="captioner-try", elem_classes=["fit"])
            show = gr.Button("Show as a command", elem_id="captioner-show", elem_classes=["fit"])
        command = gr.Textbox(
            label="The same in a terminal, from the program's folder",
            visible=False,
            interactive=False,
            lines=2,
            max_lines=8,
            buttons=["copy"],
            elem_id="captioner-command",
        )

    def order(view: View, values: Sequence[Any], **how: Any) -> None:
        caption_orders.start(desk, view, panel.request(values), **how)
        caption_orders.remember(desk, view, panel.snapshot(values))

    @tells_problems
    def show_command(view: View, *values: Any) -> Any:
        return gr.update(value=caption_orders.command_line(desk, view, panel.request(values)), visible=True)

    @tells_problems
    def resume(view: View, folder: str, event: gr.EventData) -> list[Any]:
        desk.go_on(view, str(sent(event, "id")["id"]))
        return board.job_updates(folder, "") or [gr.skip(), gr.skip()]

    desk.tells("caption", caption_orders.report, goes_on=True)
    board.job.resume(resume, [board.grid, board.folder], [board.job, board.job_shown], **TELLING)
    board.start(write, lambda view, *values: order(view, values), panel.inputs)
    board.start(draft, lambda view, *values: order(view, values, review=True), panel.inputs)
    board.start(attempt, lambda view, *values: order(view, values, review=True, limit=TRIED), panel.inputs)
    show.click(show_command, [board.grid, *panel.inputs], command, **TELLING)
    desk.context.page.load(lambda: panel.restored(caption_orders.remembered(desk)), outputs=panel.outputs)
    review.build(desk, board, panel.request, panel.inputs)


@dataclass(frozen=True)
class _Part:
    """The fields of one captioner's options."""

    column: gr.Column
    fields: list[tuple[Component, Field]]

    def of(self, name: str) -> Component | None:
        """The field of one option."""
        return next((component for component, field in self.fields if _option(field) == name), None)


class CaptionPanel:
    """The fields. Made inside a ``gr.Blocks`` context, where they are to stand.

    Attributes:
        inputs: the fields, in the order in which ``request`` and ``snapshot`` take their values.
        outputs: what ``restored`` gives values for; the trigger word comes with the dataset.
    """

    def __init__(self, board: Board) -> None:
        self._first = caption_orders.first_captioner()
        with gr.Row(elem_classes=["open-dataset"]):
            about = CAPTIONERS[self._first].about
            self._captioner = choice("Captioner", "captioner", caption_orders.captioner_choices(), self._first, about)
            scope = choice("Pictures", "captioner-scope", SCOPES, "all")
            handlings = [(label, name) for name, (label, _) in HANDLINGS.items()]
            handling = choice("Captions that are there", "captioner-handling", handlings, "missing", _UNDO)
        self._template = gr.Dropdown(
            [(template.label, name) for name, template in TEMPLATES.items()],
            value=None,
            label="Take a prompt for",
            info="Fills in the prompt below, which can then be changed.",
            visible=_takes_templates(self._first),
            filterable=False,
            elem_id="captioner-template",
            **FIELD,
        )
        self._parts = {name: _options(name, visible=name == self._first) for name in CAPTIONERS}
        wording, times = _wording(board)
        self._wording = wording
        option_fields = [pair for part in self._parts.values() for pair in part.fields]
        self._fields: dict[str, Component] = {
            "captioner": self._captioner,
            "scope": scope,
            "handling": handling,
            "times": times,
            **{field.name: component for component, field in [*wording, *option_fields]},
        }
        columns = [part.column for part in self._parts.values()]
        self.inputs: list[Block] = list(self._fields.values())
        self.outputs: list[Block] = [*self.inputs, self._template, *columns]
        self._captioner.change(self._chosen, self._captioner, [self._captioner, self._template, *columns], **_AT_ONCE)
        prompts = [component for name in CAPTIONERS if (component := self._prompt(name)) is not None]
        chosen = [self._template.change, self._template.select]  # also when it is the same one once more
        gr.on(chosen, self._filled, [self._captioner, self._template], prompts, **_AT_ONCE)

    def request(self, values: Sequence[Any]) -> CaptionRequest:
        """What the values of ``inputs`` ask for. Raises UserError for a value that cannot be read."""
        shown = dict(zip(self._fields, values, strict=True))
        part = self._parts.get(shown["captioner"])
        fields = part.fields if part else []
        return CaptionRequest(
            captioner=str(shown["captioner"]),
            options={_option(field): field.read(shown[field.name]) for _, field in fields},
            wording={_option(field): field.read(shown[field.name]) for _, field in self._wording},
            handling=str(shown["handling"]),
            scope=str(shown["scope"]),
            times=shown["times"],
        )

    def snapshot(self, values: Sequence[Any]) -> dict[str, Any]:
        """The values of ``inputs`` by field, for keeping them over a reload."""
        return dict(zip(self._fields, values, strict=True))

    def restored(self, snapshot: dict[str, Any]) -> list[Any]:
        """Values for ``outputs`` that bring a snapshot back; what does not fit its field is left as it is."""
        captioner = snapshot.get("captioner")
        chosen = captioner if captioner in CAPTIONERS else self._first
        models = {name: str(snapshot.get(f"captioner.{name}.model") or "") for name in CAPTIONERS}
        about, *rest = self._chosen(chosen)
        about = gr.update(choices=caption_orders.captioner_choices(models), value=chosen, info=about["info"])
        fields = [_restored(component, snapshot.get(name)) for name, component in self._fields.items()]
        return [about, *fields[1:], *rest]

    def _chosen(self, chosen: str) -> list[Any]:
        """The captioner's description, whether it takes a prompt from a template, and its own fields."""
        columns = [gr.update(visible=name == chosen) for name in self._parts]
        return [
            gr.update(info=CAPTIONERS[chosen].about),
            gr.update(visible=_takes_templates(chosen), value=None),
            *columns,
        ]

    def _filled(self, chosen: str, template: str) -> list[Any]:
        text = next((found.text for name, found in TEMPLATES.items() if name == template), None)
        return [
            text if name == chosen and text is not None else gr.skip()
            for name in CAPTIONERS
            if self._prompt(name) is not None
        ]

    def _prompt(self, name: str) -> Component | None:
        """The prompt field of a captioner that is asked by templates."""
        return self._parts[name].of("prompt") if _takes_templates(name) else None


_AT_ONCE: dict[str, Any] = {**TELLING, "queue": False}
_UNDO = "Undo brings the old captions back."


def _options(name: str, *, visible: bool) -> _Part:
    fields = [_for_long_texts(field) for field in fields_of(CAPTIONERS[name].options, f"captioner.{name}.")]
    with gr.Column(visible=visible, elem_classes=["captioner-options"]) as column:
        made = _made([field for field in fields if field.basic])
        more = [field for field in fields if not field.basic]
        with gr.Accordion(f"More of {CAPTIONERS[name].label}", open=False, elem_id=f"captioner-more-{name}"):
            made += _made(more)
    return _Part(column, made)


def _wording(board: Board) -> tuple[list[tuple[Component, Field]], gr.Number]:
    """The fields of what becomes of texts, and the number of texts per picture."""
    fields = fields_of(Wording, "wording.")
    with gr.Row(elem_classes=["open-dataset"]):
        board.trigger.render()
        made = [(board.trigger, TRIGGER)]
        made += [(make_component(field), field) for field in fields if field.basic and field != TRIGGER]
    with gr.Accordion("More about the text", open=False, elem_id="captioner-wording"):
        made += _made([field for field in fields if not field.basic])
        with gr.Column(elem_classes=["fields"]):
            times = gr.Number(
                1,
                label="Texts per picture",
                info="Different ones become lines of one caption. For models with a temperature.",
                precision=0,
                elem_id="captioner-times",
                **FIELD,
            )
    return made, times


def _made(fields: list[Field]) -> list[tuple[Component, Field]]:
    """Fields side by side, long texts below each other."""
    long = [field for field in fields if field.kind == "paragraph"]
    made = []
    short = [field for field in fields if field not in long]
    if short:
        with gr.Row(elem_classes=["open-dataset"]):
            made = [(make_component(field), field) for field in short]
    return made + [(make_component(field), field) for field in long]


def _for_long_texts(field: Field) -> Field:
    return replace(field, kind="paragraph") if _option(field).endswith("prompt") else field


def _option(field: Field) -> str:
    return field.name.rpartition(".")[2]


def _takes_templates(name: str) -> bool:
    """Whether the captioner chats, and its prompt is in sight: one with templates of its own keeps it folded."""
    options = CAPTIONERS[name].options
    return issubclass(options, ChatOptions) and any(
        field.basic and _option(field) == "prompt" for field in fields_of(options)
    )


def _restored(component: Component, value: Any) -> Any:
    """The value where the component can hold it; a dropdown holds one of its choices only."""
    if isinstance(component, gr.Dropdown):
        return value if value in [choice for _, choice in component.choices] else gr.skip()
    kinds: dict[type[Component], tuple[type, ...]] = {gr.Checkbox: (bool,), gr.Number: (int, float), gr.Textbox: (str,)}
    return value if isinstance(value, kinds[type(component)]) else gr.skip()
