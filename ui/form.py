"""SchemaForm: the config model as a form, and back. The only code that knows both sides.

Every field is in the page from the start; folding and searching hide by style sheet alone, so both are instant and a
problem can be shown beside any field (``assets/page.js``).
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from trainer.config import Config
from trainer.config_facts import label_of, summary_of
from trainer.config_io import parse_section
from trainer.errors import Problem, UserError
from ui.field_search import search_index
from ui.fields import CONFIG_FIELDS, Field, choice_label, fields_of, put_value
from ui.form_marks import Mark, get_value, marks
from ui.sources_editor import SourcesEditor
from ui.theme import asset

PROBLEMS_ID = "form-problems"


class Editor(Protocol):
    """One setting's components. Values go in and out as lists in the components' order."""

    components: list[Component]
    extra_outputs: list[Block]
    """What else ``show`` changes, such as rows that appear."""

    def show(self, value: Any) -> list[Any]:
        """Updates for ``components`` and ``extra_outputs`` that show a plain config value."""

    def read(self, shown: list[Any]) -> Any:
        """The plain value the components hold. Raises UserError."""

    def field_of(self, problem_field: str, shown: list[Any]) -> str:
        """The dotted name under which a problem's place is found on the page."""


class FieldEditor:
    """A setting with one component."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self.components: list[Component] = [make_component(field)]
        self.extra_outputs: list[Block] = []

    def show(self, value: Any) -> list[Any]:
        return [self._field.show(value)]

    def read(self, shown: list[Any]) -> Any:
        return self._field.read(shown[0])

    def field_of(self, problem_field: str, shown: list[Any]) -> str:
        return self._field.name


class SchemaForm:
    """The form of a config model. Made inside a ``gr.Blocks`` context, where its components are to stand."""

    def __init__(self, model: type[Config] = Config) -> None:
        self._model = model
        self._fields = fields_of(model)
        self._editors: dict[str, Editor] = {}
        gr.HTML(
            {"text": json.dumps(search_index(self._fields))},
            html_template="",
            js_on_load=asset("dataset/dom.js") + asset("form/search.js"),
            padding=False,
            elem_id="settings-search",
        )
        for key, title, about, fields in _sections(model, self._fields):
            self._section(key, title, about, fields)

    @property
    def components(self) -> list[Component]:
        """All inputs of the form, in a fixed order."""
        return [component for editor in self._editors.values() for component in editor.components]

    @property
    def outputs(self) -> list[Block]:
        """Everything ``push`` and ``restore`` may change, in a fixed order."""
        return [block for editor in self._editors.values() for block in (*editor.components, *editor.extra_outputs)]

    def collect(self, values: Mapping[Any, Any]) -> Config:
        """The config that the form holds. Raises UserError with every problem, each with its field."""
        plain, problems = self.plain(self.snapshot(values))
        try:
            config = parse_section(self._model, plain)
        except UserError as error:
            problems.extend(self._placed(problem, values) for problem in error.problems)
        if problems:
            raise UserError.many(problems)
        return config

    def plain(self, snapshot: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        """The settings of a snapshot as nested plain values, and what is wrong with those that cannot be read."""
        plain: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, editor in self._editors.items():
            try:
                put_value(plain, name, editor.read(snapshot[name]))
            except UserError as error:
                problems.extend(error.problems)
        return plain, problems

    def marks(self, snapshot: Mapping[str, Any], base: Config, own: set[str]) -> list[Mark]:
        """What is to be told beside the settings of a snapshot, compared with ``base`` except for the user's own."""
        return marks(self._fields, self.plain(snapshot)[0], base.model_dump(mode="json"), own)

    def push(self, config: Config) -> dict[Block, Any]:
        """Updates that make the form show ``config``, every field of it."""
        return {block: update for name in self._editors for block, update in self.push_one(config, name).items()}

    def push_one(self, config: Config, name: str) -> dict[Block, Any]:
        """Updates that show one of the config's settings."""
        editor = self._editors[name]
        shown = editor.show(get_value(config.model_dump(mode="json"), name))
        return dict(zip((*editor.components, *editor.extra_outputs), shown, strict=True))

    def snapshot(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """What stands in the form, right or wrong, by field: for keeping it over a reload."""
        return {name: _shown(editor, values) for name, editor in self._editors.items()}

    def snapshot_of(self, config: Config) -> dict[str, Any]:
        """What would stand in the form if it showed ``config``."""
        plain = config.model_dump(mode="json")
        snapshot = {}
        for name, editor in self._editors.items():
            shown = editor.show(get_value(plain, name))[: len(editor.components)]
            snapshot[name] = [value["value"] if isinstance(value, dict) else value for value in shown]
        return snapshot

    def restore(self, snapshot: Mapping[str, Any]) -> dict[Block, Any]:
        """Updates that bring a snapshot back. Fields it does not name, or holds in another shape, stay as they are."""
        updates: dict[Block, Any] = {}
        for name, editor in self._editors.items():
            shown = snapshot.get(name)
            if isinstance(shown, list) and len(shown) == len(editor.components):
                updates |= _restored(editor, shown)
        return updates

    def _placed(self, problem: Problem, values: Mapping[Any, Any]) -> Problem:
        """The problem with the name of the field that it stands beside on the page."""
        for name, editor in self._editors.items():
            if problem.field == name or problem.field.startswith(f"{name}."):
                field = editor.field_of(problem.field, _shown(editor, values))
                return Problem(problem.code, problem.message, problem.hint, field)
        return problem

    def _section(self, key: str, title: str, about: str, fields: list[Field]) -> None:
        basic = [field for field in fields if field.basic]
        more = [field for field in fields if not field.basic]
        with gr.Column(elem_id=f"section-{key}", elem_classes=["card", "section"]):
            gr.HTML(f"<h2>{html.escape(title)}</h2><p>{html.escape(about)}</p>", padding=False)
            if basic:
                self._side_by_side(basic)
            if not more:
                return
            label = "More settings" if basic else "Settings"
            fold = gr.Button(label, size="sm", elem_classes=["fold"], elem_id=f"fold-{key}")
            fold.click(None, js=f"() => atelier.toggleSection('{key}')")
            with gr.Column(elem_classes=["more"], elem_id=f"more-{key}"):
                for group in dict.fromkeys(field.group for field in more):
                    if group:
                        gr.HTML(f"<h3>{html.escape(group)}</h3>", padding=False, elem_classes=["group-title"])
                    self._side_by_side([field for field in more if field.group == group])

    def _side_by_side(self, fields: list[Field]) -> None:
        """Fields side by side; those that need the width, below each other."""
        wide = [field for field in fields if field.kind in ("rows", "prompts")]
        narrow = [field for field in fields if field not in wide]
        for field in wide:
            if field.kind == "rows":
                self._editors[field.name] = SourcesEditor(field)
        if narrow:
            with gr.Column(elem_classes=["fields"]):
                for field in narrow:
                    self._editors[field.name] = FieldEditor(field)
        for field in wide:
            if field.kind == "prompts":
                self._editors[field.name] = FieldEditor(field)


def make_component(field: Field) -> Component:
    """The component for one setting. Numbers are edited as text, so that 1e-4 stays as it was typed."""
    common: dict[str, Any] = {
        "label": field.label,
        "info": f"{field.help} {field.allowed}".strip(),
        "elem_id": element_id(field.name),
        "elem_classes": ["field"],
        "interactive": True,
    }
    value = field.show(field.default)
    if field.kind == "switch":
        return gr.Checkbox(value, **common)
    if field.kind == "choice":
        choices = [(choice_label(choice), choice) for choice in field.choices]
        return gr.Dropdown(choices, value=value, filterable=False, **common)
    if field.kind in ("yaml", "lines", "prompts", "paragraph"):
        return gr.Textbox(value, lines=3 if field.kind in ("prompts", "paragraph") else 2, max_lines=12, **common)
    return gr.Textbox(value, lines=1, max_lines=1, placeholder="none" if field.optional else None, **common)


def element_id(name: str) -> str:
    """The page's id of a field: ``field-train-learning_rate``."""
    return f"field-{name.replace('.', '-')}"


def problems_html(problems: tuple[Problem, ...], *, move: bool = True) -> str:
    """The problems as a list; the page's script repeats each beside its field and unfolds it.

    With ``move`` it also goes to the first of them: right after a button, wrong while somebody types.
    """
    labels = {field.name: field.label for field in CONFIG_FIELDS}
    items = "".join(
        f'<li data-field="{html.escape(problem.field)}">'
        f"{_name_shown(problem.field, labels)}{html.escape(_without_name(problem))}</li>"
        for problem in problems
    )
    return (
        f'<ul id="{PROBLEMS_ID}" class="problems" role="alert" data-move="{str(move).lower()}">{items}</ul>'
        if items
        else ""
    )


def _name_shown(field: str, labels: dict[str, str]) -> str:
    return f'<button type="button">{html.escape(labels[field])}</button> ' if field in labels else ""


def _without_name(problem: Problem) -> str:
    """The message; the field's dotted name in front says nothing more beside the field itself."""
    text = str(problem).removeprefix(f"{problem.field}: ") if problem.field else str(problem)
    return text[:1].upper() + text[1:]


def _sections(model: type[Config], fields: Sequence[Field]) -> list[tuple[str, str, str, list[Field]]]:
    """Key, title, description and fields of each section, in the config's order.

    A setting outside of all sections, such as the name, stands in the one that follows it.
    """
    sections = []
    inside: list[Field] = []
    for name, info in model.model_fields.items():
        inside += [field for field in fields if name in (field.name, field.section)]
        if info.annotation is not None and any(field.section == name for field in inside):
            sections.append((name, label_of(name, info), summary_of(info.annotation), inside))
            inside = []
    return sections


def _shown(editor: Editor, values: Mapping[Any, Any]) -> list[Any]:
    return [values[component] for component in editor.components]


def _restored(editor: Editor, shown: list[Any]) -> dict[Block, Any]:
    updates: dict[Block, Any] = {}
    for component, value in zip(editor.components, shown, strict=True):
        if not isinstance(component, gr.Dropdown) or value in [choice for _, choice in component.choices]:
            updates[component] = value
    if isinstance(editor, SourcesEditor):
        updates |= zip(editor.extra_outputs, editor.visible_rows(shown), strict=True)
    return updates
