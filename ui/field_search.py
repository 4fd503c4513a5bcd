"""What the search over all settings looks through: labels, YAML names and other trainers' names. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.config import Source
from ui.fields import Field, fields_of


def names_of(field: Field) -> list[str]:
    """Everything a setting is called: label first, then dotted and short name, then other trainers' names.

    The list of folders is called by its columns, too.
    """
    names = [field.label, field.name, field.name.rpartition(".")[2], *field.also]
    if field.kind == "rows":
        names += [name for column in fields_of(Source) for name in names_of(column)]
    return list(dict.fromkeys(names))


def search_index(fields: Sequence[Field]) -> list[dict[str, object]]:
    """One entry a setting, for the page's script: dotted name, everything it is called, and its explanation."""
    return [{"name": field.name, "names": names_of(field), "help": field.help} for field in fields]
