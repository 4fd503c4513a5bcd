"""Whether everything that one JSON schema allows is allowed by another one too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_KEPT = {*_LOWER, *_UPPER, "type", "enum", "const", "pattern", "multipleOf", "required"}


def bare(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema of pydantic's without names, texts and defaults, and with what it refers to in its place."""
    if "$ref" in schema:
        return bare(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    found = {key: value for key, value in schema.items() if key in _KEPT}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found[key] = bare(schema[key], definitions)
    for key in ("anyOf", "oneOf", "prefixItems"):
        if key in schema:
            found["anyOf" if key == "oneOf" else key] = [bare(each, definitions) for each in schema[key]]
    if "properties" in schema:
        found["properties"] = {name: bare(each, definitions) for name, each in schema["properties"].items()}
    return found


def narrowed(now: dict[str, Any], before: dict[str, Any], name: str = "") -> Iterator[str]:
    """What ``before`` allowed and ``now`` does not, by dotted names; nothing where all of it still is."""
    if "properties" in before and "properties" in now:
        for key, each in before["properties"].items():
            dotted = f"{name}.{key}".lstrip(".")
            if key in now["properties"]:
                yield from narrowed(now["properties"][key], each, dotted)
            else:
                yield f"{dotted} is gone"
        yield from (f"{name}.{key} is required" for key in {*now.get("required", ())} - {*before.get("required", ())})
        return
    forms = now.get("anyOf", [now])
    for form in before.get("anyOf", [before]):
        complaints = [_narrowed_form(each, form, name) for each in forms]
        if all(complaints):
            yield from min(complaints, key=len)


def _narrowed_form(now: dict[str, Any], before: dict[str, Any], name: str) -> list[str]:
    types = {now.get("type"), "integer" if now.get("type") == "number" else now.get("type")}
    if before.get("type") not in types and "type" in now:
        return [f"{name} was of type {before.get('type')}"]
    lost = [value for value in _choices(before) if "enum" in now or "const" in now if value not in _choices(now)]
    if lost or (_choices(now) and not _choices(before)):
        return [f"{name} allowed {lost or 'anything'}"]
    found = [f"{name}: {key} is new or higher" for key in _LOWER if now.get(key, -1e400) > before.get(key, -1e400)]
    found += [f"{name}: {key} is new or lower" for key in _UPPER if now.get(key, 1e400) < before.get(key, 1e400)]
    if now.get("pattern") not in (None, before.get("pattern")):
        found.append(f"{name}: another pattern")
    step = now.get("multipleOf")
    if step and ("multipleOf" not in before or before["multipleOf"] % step):
        found.append(f"{name}: another step")
    for key in ("items", "additionalProperties"):
        if key in now:
            found += narrowed(now[key], before.get(key, {}), name)
    for new, old in zip(now.get("prefixItems", []), before.get("prefixItems", []), strict=True):
        found += narrowed(new, old, name)
    if "properties" in before:
        found += narrowed(now, before, name)
    return found


def _choices(schema: dict[str, Any]) -> list[Any]:
    return schema.get("enum", [schema["const"]] if "const" in schema else [])
