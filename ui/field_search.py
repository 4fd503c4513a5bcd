"""What the search over all settings looks through: labels, YAML names and other trainers' names. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.config import Source
from ui.fields import Field, fields_of


def names_of(field: Field) -> list[str]:
    """Everything a setting is called. The list of folders is called by its columns, too."""
    columns = fields_of(Source) if field.kind == "rows" else []
    return list(dict.fromkeys([*field.names, *(name for column in columns for name in column.names)]))


def search_index(fields: Sequence[Field]) -> list[dict[str, object]]:
    """One entry a setting, for the page's script: dotted name, everything it is called, and its explanation."""
    return [{"name": field.name, "names": names_of(field), "help": field.help} for field in fields]
