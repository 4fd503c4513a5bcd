"""What is to be told beside a setting: that it differs from the preset, and that it has no effect now. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.config import Source
from trainer.config_relevance import Condition
from ui.fields import Field, choice_label, fields_of

MISSING = object()
"""Stands for what the form holds where that cannot be read."""
_LONGEST_TEXT = 60


@dataclass(frozen=True)
class Mark:
    """What is told beside one setting.

    Attributes:
        name: dotted name of the setting.
        differs: whether it is another value than the preset's.
        now: the value it has, in words.
        before: the preset's value, in words.
        idle: why it has no effect; empty where it has one.
        changed: whether it is another value than the default: such a setting is shown though it has no effect.
    """

    name: str
    label: str
    differs: bool
    now: str
    before: str
    idle: str
    changed: bool


def marks(fields: Sequence[Field], plain: Mapping[str, Any], base: Mapping[str, Any], own: set[str]) -> list[Mark]:
    """The settings that something is to be told about.

    Args:
        plain: what the form holds, nested; fields that cannot be read are absent.
        base: the preset's settings, complete.
        own: dotted names of settings that are the user's own and not compared.
    """
    by_name = {field.name: field for field in fields}
    found = []
    for field in fields:
        value, before = get_value(plain, field.name), get_value(base, field.name)
        idle = why_idle(field, by_name, plain)
        differs = field.name not in own and not _same(field, value, before)
        if differs or idle:
            changed = not _same(field, value, field.default)
            now, then = text_of(field, value), text_of(field, before)
            found.append(Mark(field.name, field.label, differs, now, then, idle, changed))
    return found


def as_data(told: Sequence[Mark], against: str, can_undo: bool) -> dict[str, Any]:
    """The marks for the page's script."""
    return {"against": against, "undo": can_undo, "marks": [asdict(mark) for mark in told]}


def why_idle(field: Field, by_name: Mapping[str, Field], plain: Mapping[str, Any]) -> str:
    """Why a setting has no effect beside the others, as a sentence; empty where it has one."""
    unmet = field.relevant.unmet(plain) if field.relevant else []
    states = dict.fromkeys(_state(condition, by_name, plain) for condition in unmet)
    return f"No effect while {' and '.join(states)}." if states else ""


def _state(condition: Condition, by_name: Mapping[str, Field], plain: Mapping[str, Any]) -> str:
    """How things stand that should be otherwise: ``Schedule is cosine``."""
    if "*" in condition.field:
        column = condition.field.rpartition(".")[2]
        label = next(field.label for field in fields_of(Source) if field.name == column)
        return f"no folder has {label}"
    field = by_name[condition.field]
    text = f"{field.label} is {text_of(field, get_value(plain, field.name))}"
    return f"{text}, not {' or '.join(map(str, condition.values))}" if len(condition.values) == 1 else text


def text_of(field: Field, value: Any) -> str:
    """A plain value in a few words."""
    if value is MISSING:
        return "not readable"
    if field.kind == "switch":
        return "on" if value else "off"
    if field.kind == "choice":
        return choice_label(value)
    if field.kind == "rows":
        return "1 folder" if len(value) == 1 else f"{len(value)} folders"
    lines = str(field.show(value)).splitlines()
    text = " / ".join(line.strip() for line in lines if line.strip())
    return (text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…") or "empty"


def get_value(plain: Mapping[str, Any], name: str) -> Any:
    """The value under a dotted name; ``MISSING`` where there is none."""
    value: Any = plain
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


def _same(field: Field, value: Any, other: Any) -> bool:
    """Whether both are shown alike: what only reads differently is no difference."""
    if MISSING in (value, other):
        return value is other
    return bool(field.show(value) == field.show(other))
