"""The dataset's folders as rows: one folder each, with its repeats and its caption for pictures without one."""

from __future__ import annotations

import html
import re
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from trainer.config import Source
from trainer.errors import UserError
from trainer.yaml_texts import YamlError, dump_yaml, load_yaml
from ui.fields import Field, fields_of
from ui.wiring import QUIET

ROWS = 8
_SCALES = {"path": 5, "class_prompt": 3}


class SourcesEditor:
    """Rows made from the ``Source`` model. Folders beyond the rows there are stand as YAML below them."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._columns = fields_of(Source)
        self._blank = [column.show(column.default) for column in self._columns]
        self._nothing = [column.read(cell) for column, cell in zip(self._columns, self._blank, strict=True)]
        self.components: list[Component] = []
        self.extra_outputs: list[Block] = []
        removers: list[gr.Button] = []
        gr.HTML(
            f'<div class="rows-title" id="field-dataset-sources"><span>{html.escape(field.label)}</span>'
            f"<small>{_with_code(self._columns[0].help)}</small></div>",
            padding=False,
        )
        with gr.Column(elem_classes=["sources"], elem_id="section-sources"):
            for number in range(ROWS):
                with gr.Row(visible=number == 0, elem_classes=["source-row"]) as row:
                    self.components.extend(self._cell(column, number) for column in self._columns)
                    removers.append(gr.Button("×", size="sm", min_width=36, scale=0, elem_classes=["remove"]))
                self.extra_outputs.append(row)
            fold = gr.Button(self._fold_label([]), size="sm", elem_classes=["fold"], elem_id="fold-sources")
            fold.click(None, js="() => atelier.toggleSection('sources')")
            self.extra_outputs.append(fold)
        more = gr.Textbox(visible=False, lines=4, label="More folders, as YAML", interactive=True)
        self.components.append(more)
        add = gr.Button("Add a folder", size="sm", elem_classes=["fold"], elem_id="add-source")
        self._wire(add, removers)

    def show(self, value: Any) -> list[Any]:
        rows = [self._shown_row(source) for source in value[:ROWS]]
        return self._showing(rows, dump_yaml(value[ROWS:]) if value[ROWS:] else "")

    def read(self, shown: list[Any]) -> Any:
        sources = [self._row(shown, number) for number in self._used(shown)]
        try:
            rest = load_yaml(shown[-1] or "") or []
        except YamlError as error:
            raise UserError(
                "config.yaml", "The further folders are not valid YAML.", "Correct that text.", self._field.name
            ) from error
        return [*sources, *(rest if isinstance(rest, list) else [rest])]

    def field_of(self, problem_field: str, shown: list[Any]) -> str:
        """``dataset.sources.0.path`` with the number of the row in place of the place in the list."""
        parts = problem_field.removeprefix(self._field.name).strip(".").split(".")
        used = self._used(shown)
        if parts[0].isdigit() and int(parts[0]) < len(used):
            return ".".join([self._field.name, str(used[int(parts[0])]), *parts[1:]])
        return self._field.name

    def visible_rows(self, shown: list[Any], one_more: bool = False) -> list[Any]:
        """All rows up to the last used one are shown, and at least one; the fold tells how many settings it hides."""
        last = max(self._used(shown), default=-1) + (1 if one_more else 0)
        rows = [gr.update(visible=number <= max(last, 0)) for number in range(ROWS)]
        return [*rows, gr.update(value=self._fold_label(shown))]

    def _fold_label(self, shown: list[Any]) -> str:
        folded = [column for column in self._columns if not column.basic]
        rows = [self._differing(shown, number) for number in range(ROWS)] if shown else []
        changed = sum(column.name in row for row in rows for column in folded)
        return f"{len(folded)} more settings of each folder" + (f" ({changed} set)" if changed else "")

    def _cell(self, column: Field, number: int) -> Component:
        common: dict[str, Any] = {
            "label": column.label,
            "elem_id": f"field-dataset-sources-{number}-{column.name}",
            "elem_classes": ["field"] if column.basic else ["field", "folded"],
            "info": None if column.basic else column.help,
            "interactive": True,
            "scale": _SCALES.get(column.name, 1),
            "min_width": 110,
        }
        value = column.show(column.default)
        if column.kind == "switch":
            return gr.Checkbox(value, **common)
        placeholder = "/path/to/pictures" if column.name == "path" else None
        max_lines = 8 if column.kind == "yaml" else 1
        return gr.Textbox(value, lines=1, max_lines=max_lines, placeholder=placeholder, **common)

    def _showing(self, rows: list[list[Any]], rest: str) -> list[Any]:
        """Updates for all components that show these cells, and the further folders as YAML."""
        cells = [cell for row in (*rows, *[self._blank] * (ROWS - len(rows))) for cell in row]
        return [*cells, gr.update(value=rest, visible=bool(rest)), *self.visible_rows([*cells, rest])]

    def _shown_row(self, source: dict[str, Any]) -> list[Any]:
        return [column.show(source[column.name]) for column in self._columns]

    def _cells(self, shown: list[Any], number: int) -> list[Any]:
        width = len(self._columns)
        return shown[number * width : (number + 1) * width]

    def _row(self, shown: list[Any], number: int) -> dict[str, Any]:
        return {column.name: column.read(cell) for column, cell in self._by_column(shown, number)}

    def _by_column(self, shown: list[Any], number: int) -> list[tuple[Field, Any]]:
        return list(zip(self._columns, self._cells(shown, number), strict=True))

    def _differing(self, shown: list[Any], number: int) -> set[str]:
        """Names of the columns in which a row has something, also what cannot be read."""
        cells = zip(self._by_column(shown, number), self._nothing, strict=True)
        return {column.name for (column, cell), nothing in cells if not _holds(column, cell, nothing)}

    def _used(self, shown: list[Any]) -> list[int]:
        """The rows in which something stands."""
        return [number for number in range(ROWS) if self._differing(shown, number)]

    def _wire(self, add: gr.Button, removers: list[gr.Button]) -> None:
        def add_row(*shown: Any) -> list[Any]:
            return self.visible_rows(list(shown), one_more=True)

        add.click(add_row, self.components, self.extra_outputs, **QUIET)
        for number, button in enumerate(removers):
            button.click(self._remover(number), self.components, [*self.components, *self.extra_outputs], **QUIET)

    def _remover(self, number: int) -> Any:
        def remove(*shown: Any) -> list[Any]:
            return self.without(number, list(shown))

        return remove

    def without(self, number: int, shown: list[Any]) -> list[Any]:
        """Updates that leave a row out: the others, right or wrong, move up, and further folders follow them."""
        rows = [self._cells(shown, other) for other in self._used(shown) if other != number]
        further = self._further(shown[-1] or "")
        room = ROWS - len(rows)
        if not further:
            return self._showing(rows, shown[-1] or "")
        rest = dump_yaml(further[room:]) if further[room:] else ""
        return self._showing([*rows, *map(self._shown_row, further[:room])], rest)

    def _further(self, text: str) -> list[dict[str, Any]]:
        """The folders that stand as YAML, where each is whole; none while something is still to be corrected."""
        try:
            found = load_yaml(text)
        except YamlError:
            return []
        names = {column.name for column in self._columns}
        whole = isinstance(found, list) and all(isinstance(each, dict) and each.keys() == names for each in found)
        return found if whole else []


def _holds(column: Field, cell: Any, value: Any) -> bool:
    try:
        return bool(column.read(cell) == value)
    except UserError:
        return False  # something else stands there


def _with_code(text: str) -> str:
    """Help text as HTML, what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
