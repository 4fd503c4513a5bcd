"""A model's fields as options of a command, and back: described once, for the page and for the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TypeVar

from trainer.config_base import Section
from trainer.config_io import parse_section

T = TypeVar("T", bound=Section)


def add_fields(parser: argparse._ActionsContainer, model: type[Section]) -> None:
    """An option for each field: a switch for yes or no, and one that can be repeated for lists."""
    for name, info in model.model_fields.items():
        option, about = f"--{name.replace('_', '-')}", " ".join((info.description or "").split()).replace("%", "%%")
        if info.annotation is bool:
            parser.add_argument(option, action="store_true", help=about)
        elif isinstance(info.get_default(), list):
            parser.add_argument(option, action="append", help=about)
        else:
            parser.add_argument(option, help=about)


def given_fields(args: argparse.Namespace, model: type[T]) -> T:
    """The model that the options give. Raises UserError with one problem per wrong one."""
    given = {name: getattr(args, name) for name in model.model_fields}
    values = {name: value for name, value in given.items() if value not in (None, False)}
    return parse_section(model, values)


def as_options(section: Section) -> Iterator[str]:
    """The options that give this model: those that differ from the defaults."""
    for name, value in section.model_dump(exclude_defaults=True).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            yield option
        else:
            yield from (f"{option}={item}" for item in (value if isinstance(value, list) else [value]))
