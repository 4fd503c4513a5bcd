"""Fields for things that each have a model of their options: only those of the chosen one are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component
from pydantic import BaseModel

from ui.fields import Field, fields_of
from ui.form import make_component


class OptionFields:
    """One column of fields for each model.

    Args:
        models: by name; the first one's fields are shown.
        prefix: what the fields' ids begin with, such as ``edit``.

    Attributes:
        columns: to be updated with ``chosen``.
        components: all fields of all models, for handlers to be given the values of.
    """

    def __init__(self, models: Mapping[str, type[BaseModel]], prefix: str) -> None:
        self._fields: dict[str, list[Field]] = {}
        self.columns: list[gr.Column] = []
        self.components: list[Component] = []
        for name, model in models.items():
            self._fields[name] = fields_of(model, f"{prefix}.{name}.")
            with gr.Column(visible=not self.columns, elem_classes=["fields"]) as column:
                self.components += [make_component(field) for field in self._fields[name]]
            self.columns.append(column)

    def chosen(self, name: str) -> list[Any]:
        """Updates of ``columns`` that show the fields of one model."""
        return [gr.update(visible=name == other) for other in self._fields]

    def read(self, name: str, shown: Sequence[Any]) -> dict[str, Any]:
        """The options of one model as plain values; ``shown`` is what all the components hold."""
        values = iter(shown)
        options: dict[str, Any] = {}
        for other, fields in self._fields.items():
            for field, value in zip(fields, values, strict=False):
                if other == name:
                    options[field.name.rpartition(".")[2]] = field.read(value)
        return options
