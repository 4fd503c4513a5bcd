"""What a setting may be, in words, read from the JSON Schema that pydantic makes of the limits it checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

Schema = Mapping[str, Any]
ENDLESS = 100_000
"""A limit from here on only keeps mistakes out: nobody has to be told beside a field."""
_NOUNS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`"}


def forms_of(schema: Schema) -> list[Schema]:
    """The forms that a value may have besides null."""
    return [form for form in schema.get("anyOf", [schema]) if form.get("type") != "null"]


def allows_null(schema: Schema) -> bool:
    """Whether null is allowed."""
    return len(forms_of(schema)) < len(schema.get("anyOf", [schema]))


def choices_of(schema: Schema) -> tuple[Any, ...]:
    """The values that are allowed, or allowed as entries of the list; empty where that cannot be listed."""
    forms = forms_of(schema)
    form = forms[0] if len(forms) == 1 else {}
    form = form.get("items", form)
    return tuple(form.get("enum", [form["const"]] if "const" in form else []))


def range_of(schema: Schema) -> str:
    """``From 64 to 4096, a multiple of 8.`` for a number's field; empty where nothing is to be told."""
    forms = forms_of(schema)
    text = _range(forms[0], ENDLESS) if len(forms) == 1 else ""
    return f"{text[0].upper()}{text[1:]}." if text else ""


def allowed_in_words(schema: Schema) -> str:
    """Every form that a value may have, with all limits: ``whole number (from 1 to 1024)``, or more of them."""
    forms = [_form(form) for form in forms_of(schema)]
    return ", or ".join([*forms, "`null`"] if allows_null(schema) else forms)


def in_yaml(value: Any) -> str:
    """A plain value as it is written in a config, in one line."""
    return str(yaml.safe_dump([value], default_flow_style=True, width=math.inf, allow_unicode=True)).strip()[1:-1]


def listed(values: tuple[Any, ...]) -> str:
    """The values in a row, each as it is written in a config."""
    *others, last = (f"`{in_yaml(value)}`" for value in values)
    return f"{', '.join(others)} or {last}" if others else last


def _form(form: Schema) -> str:
    choices = choices_of(form)
    if choices and form.get("type") != "array":
        return listed(choices)
    if form["type"] == "array":
        return f"list of {'any of ' + listed(choices) if choices else _plural(form['items'])}"
    if form["type"] == "object":
        entries = form.get("additionalProperties")
        return f"mapping of texts to {_plural(entries)}" if isinstance(entries, dict) else "mapping"
    limits = _range(form, math.inf) if form["type"] in ("integer", "number") else _text_limits(form)
    return f"{_NOUNS[form['type']]} ({limits})" if limits else _NOUNS[form["type"]]


def _plural(form: Schema) -> str:
    """``whole numbers (1 or more)`` for the entries of a list."""
    if "prefixItems" in form:
        return f"pairs of {_plural(form['prefixItems'][0])}"
    noun, bracket, limits = _form(form).partition(" (")
    return f"{noun}s{bracket}{limits}"


def _text_limits(form: Schema) -> str:
    shortest, longest, pattern = form.get("minLength"), form.get("maxLength"), form.get("pattern")
    if pattern:
        return f"of the form `{pattern}`"
    if longest is not None:
        return f"{shortest} to {longest} characters" if shortest else f"up to {longest} characters"
    return "not empty" if shortest else ""


def _range(form: Schema, endless: float) -> str:
    """The limits of a number that are below ``endless``."""
    above, low = form.get("exclusiveMinimum"), form.get("minimum")
    below, high = form.get("exclusiveMaximum"), form.get("maximum")
    below = below if below is not None and below < endless else None
    high = high if high is not None and high < endless else None
    text = _words(above, low, below, high)
    return f"{text}, a multiple of {form['multipleOf']}" if text and "multipleOf" in form else text


def _words(above: float | None, low: float | None, below: float | None, high: float | None) -> str:
    if below is None and high is None:
        return f"above {above}" if above is not None else f"{low} or more" if low is not None else ""
    end = f"below {below}" if below is not None else f"{high}"
    if above is not None:
        return f"above {above}, {end}" if below is not None else f"above {above}, up to {end}"
    if low is None:
        return end if below is not None else f"up to {end}"
    return f"from {low}, {end}" if below is not None else f"from {low} to {end}"
