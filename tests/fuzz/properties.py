"""How many examples the properties get, and what several of them draw from.

In the usual tests they are few and the same each time. ``LORA_ATELIER_FUZZ=10000`` tries that many new ones of each.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

ASKED = os.environ.get("LORA_ATELIER_FUZZ")

settings.register_profile(
    "atelier",
    max_examples=int(ASKED or "50"),
    derandomize=ASKED is None,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if ASKED else [])],  # shrinking may take minutes
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
settings.load_profile("atelier")

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
"""Plain values of any kind, as YAML and JSON have them."""


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema allows, see ``tests.unit.schema_compared.bare``; not every name of a section is given."""
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return st.one_of([values_of(each) for each in schema["anyOf"]])
    return _OF_TYPE[schema["type"]](schema)


def _whole(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    step = schema.get("multipleOf", 1)
    low, high = schema.get("minimum", -(2**31)), schema.get("maximum", 2**53)
    high = min(high, schema["exclusiveMaximum"] - 1) if "exclusiveMaximum" in schema else high
    return st.integers(-(-low // step), high // step).map(lambda number: number * step)


def _number(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    low, high = (schema.get(f"exclusive{end}", schema.get(end.lower())) for end in ("Minimum", "Maximum"))
    return st.floats(
        low,
        high,
        exclude_min="exclusiveMinimum" in schema,
        exclude_max="exclusiveMaximum" in schema,
        allow_nan=False,
        allow_infinity=False,
    )


def _text(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 40), 40))


def _list(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "prefixItems" in schema:
        return st.tuples(*map(values_of, schema["prefixItems"])).map(list)
    most = min(schema.get("maxItems", 3), 3)
    return st.lists(values_of(schema.get("items", {"type": "null"})), min_size=schema.get("minItems", 0), max_size=most)


def _section(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "properties" not in schema:
        return st.dictionaries(st.text(min_size=1, max_size=12), _additional(schema), max_size=2)
    required = set(schema.get("required", ()))
    parts = {name: values_of(each) for name, each in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: each for name, each in parts.items() if name in required},
        optional={name: each for name, each in parts.items() if name not in required},
    )


def _additional(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    return values_of(schema["additionalProperties"]) if "additionalProperties" in schema else _SCALARS


_OF_TYPE = {
    "integer": _whole,
    "number": _number,
    "string": _text,
    "array": _list,
    "object": _section,
    "boolean": lambda _: st.booleans(),
    "null": lambda _: st.none(),
}
