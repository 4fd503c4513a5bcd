"""Reading and writing configs: YAML files, ``a.b=value`` overrides, presets, and one message per problem."""

from __future__ import annotations

import difflib
import math
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from trainer.config import Config
from trainer.config_facts import Setting, section_in, settings_of
from trainer.config_paths import with_full_paths
from trainer.errors import Problem, UserError
from trainer.files import write_text
from trainer.hub_names import HUB_NAME
from trainer.prompt_lines import flags_in_words
from trainer.versions import CONFIG
from trainer.yaml_texts import YamlError, dump_yaml, load_yaml

SectionT = TypeVar("SectionT", bound=BaseModel)

_PATTERNS = {HUB_NAME: "owner/name, as on the Hugging Face Hub"}
"""What a setting's pattern says, in words."""

PRESETS_DIR = Path(__file__).resolve().parent.parent / "presets"


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a config file, apply ``a.b=value`` overrides and validate everything at once.

    Relative paths are taken from the config file's own folder, those of overrides from the current one. Raises
    UserError with every problem.
    """
    here = Path.cwd()
    values = with_full_paths(read_yaml(path), path.expanduser().resolve().parent, here)
    for override in overrides or []:
        apply_override(values, override)
    return parse_config(with_full_paths(values, here))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping. Raises UserError when it cannot be read or is something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "config.unreadable", f"The config {path} cannot be read: {error}.", "Check the path."
        ) from error
    return parse_yaml(text, path.name)


def parse_yaml(text: str, called: str) -> dict[str, Any]:
    """Plain values of a YAML text that holds a mapping. Raises UserError, which calls the text as given."""
    try:
        values = load_yaml(text)
    except YamlError as error:
        raise UserError(
            "config.yaml", f"{called} is not valid YAML{error}.", "Check indentation and colons there."
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(
            "config.not_a_mapping",
            f"{called} holds {_kind_of(values)}, not settings.",
            "Write `name: value` lines.",
        )
    return values


def parse_config(values: dict[str, Any]) -> Config:
    """Validate plain values, of this version or an older one. Raises UserError with one problem per wrong field."""
    values = CONFIG.read(values)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError.many(problems_of(error, values)) from error


def parse_section(model: type[SectionT], values: dict[str, Any]) -> SectionT:
    """A section of settings that stands by itself, from plain values. Raises UserError with one problem per field."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError.many(problems_of(error, values)) from error


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one ``a.b=value`` in nested plain values; the value is read as YAML. Raises UserError."""
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise UserError(
            "config.override",
            f"--set {override!r} is not of the form section.field=value.",
            "Example: --set train.max_steps=200",
        )
    target: Any = values
    for key in keys[:-1]:
        if isinstance(target, list):
            target = target[int(key)] if key.isdigit() and int(key) < len(target) else None
        else:
            target = target.setdefault(key, {})
        if not isinstance(target, dict) and not (isinstance(target, list) and key != keys[-2]):
            raise UserError(
                "config.override", f"--set {name}: {key} is a value, not a section.", "Check the name.", field=name
            )
    try:
        target[keys[-1]] = load_yaml(text)
    except YamlError as error:
        raise UserError(
            "config.override", f"--set {name}: {text!r} is not a YAML value.", "Put text in quotes.", field=name
        ) from error


def dump_config(config: Config) -> str:
    """The complete config as YAML, in the model's order."""
    return dump_yaml(config.model_dump(mode="json"))


def dump_changes(config: Config) -> str:
    """Only what differs from the defaults, as YAML: what a preset file holds."""
    changes = config.model_dump(mode="json", exclude_defaults=True)
    return dump_yaml({"version": CONFIG.version, **changes})


def save_config(config: Config, path: Path) -> None:
    """Write the complete config atomically."""
    write_text(path, dump_config(config))


def problems_of(error: ValidationError, values: dict[str, Any]) -> list[Problem]:
    """One Problem per wrong field. Of a field that may take several forms, the complaints of the nearest form count."""
    plain: list[Any] = []
    forms: dict[str, dict[str, list[Any]]] = {}
    for detail in error.errors(include_url=False):
        field, form = _field_and_form(detail["loc"])
        if form:
            forms.setdefault(field, {}).setdefault(form, []).append(detail)
        else:
            plain.append(detail)
    for field, by_form in forms.items():
        plain += _nearest_form(field, by_form)
    order = {name: place for place, name in enumerate(Config.model_fields)}
    plain.sort(key=lambda detail: order.get(str(detail["loc"][0]) if detail["loc"] else "", -1))
    return [_problem(_field_name(detail["loc"]), detail) for detail in plain]


def _is_form(part: int | str) -> bool:
    """Whether a part of a pydantic location names a branch of a union, and not a field."""
    return isinstance(part, str) and ("[" in part or part.startswith("constrained-"))


def _field_and_form(location: tuple[int | str, ...]) -> tuple[str, str]:
    """The field that a location lies in, and the branch of its union; no branch for ordinary fields."""
    for place, part in enumerate(location):
        if _is_form(part):
            return ".".join(map(str, location[:place])), str(part)
    return _field_name(location), ""


def _nearest_form(field: str, by_form: dict[str, list[Any]]) -> list[Any]:
    """The complaints of the branch that fits best: one whose type is right, then the one with the fewest."""

    def distance(details: list[Any]) -> tuple[bool, int]:
        return any(detail["type"].endswith("_type") for detail in details), len(details)

    best = min(by_form.values(), key=distance)
    if not distance(best)[0]:
        return best
    allowed = " or ".join(dict.fromkeys(_allowed(details[0]["type"], {}) for details in by_form.values()))
    given = best[0]["input"] if _field_name(best[0]["loc"]) == field else None
    return [{"type": "form", "loc": tuple(field.split(".")), "input": given, "ctx": {"expected": allowed}}]


def _field_name(location: tuple[int | str, ...]) -> str:
    """The dotted name of a pydantic location, without pydantic's names for the branches of a union."""
    return ".".join(str(part) for part in location if not _is_form(part) and part != "[key]")


def _problem(field: str, detail: Any) -> Problem:
    kind, given, limits = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden" and "--" in field:
        hint = f"These are: {flags_in_words()}. As part of the prompt, leave out the dashes."
        return Problem("config.unknown_flag", f"{field.replace('.--', ': --')} is not a flag of prompts.", hint, field)
    if kind in ("extra_forbidden", "invalid_key"):
        meant = _meant(field)
        hint = f"Did you mean {meant}?" if meant else "Remove it, or check its spelling and indentation."
        return Problem("config.unknown_key", f"{field} is not a setting.", hint, field)
    if kind == "multiple_of" and isinstance(given, int):
        step = limits["multiple_of"]
        lower = given // step * step
        return Problem(
            "config.value", f"{field}: {given} is not a multiple of {step}.", f"Use {lower} or {lower + step}.", field
        )
    if kind == "value_error":
        return Problem("config.value", f"{field or 'config'}: {limits['error']}.", "", field)
    if kind == "missing":
        return Problem("config.missing", f"{field} is missing.", "Add it.", field)
    allowed = _allowed(kind, limits)
    code = "config.value" if limits or kind.endswith("_parsing") else "config.type"
    return Problem(code, f"{field}: {_shown(given)} is not allowed; allowed is {allowed}.", "Correct the value.", field)


def _allowed(kind: str, limits: dict[str, Any]) -> str:
    pattern = limits.get("pattern")
    bounds = {
        "form": limits.get("expected"),
        "greater_than_equal": f"{limits.get('ge')} or more",
        "greater_than": f"more than {limits.get('gt')}",
        "less_than_equal": f"{limits.get('le')} or less",
        "less_than": f"less than {limits.get('lt')}",
        "literal_error": limits.get("expected"),
        "string_pattern_mismatch": _PATTERNS.get(str(pattern), f"text of the form {pattern}"),
        "string_too_short": f"at least {limits.get('min_length')} character",
        "string_too_long": f"at most {limits.get('max_length')} characters",
        "too_long": f"at most {limits.get('max_length')} entries",
        "finite_number": "a finite number",
        "none_required": "nothing (null)",
    }
    words = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "string": "text",
        "list": "a list",
        "dict": "a mapping",
    }
    types = {"tuple": "a pair", "model": "a section with its own settings"}
    named = bounds.get(kind)
    return str(named) if named else (words | types).get(kind.split("_")[0], kind.replace("_", " "))


def _shown(given: Any) -> str:
    if given is None or isinstance(given, bool):
        return str(yaml.safe_dump(given)).split()[0]  # null, true, false
    if isinstance(given, float) and not math.isfinite(given):
        return str(given)
    text = repr(given)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind_of(value: Any) -> str:
    words = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return words.get(type(value), f"a {type(value).__name__}")


def _meant(field: str) -> str | None:
    """The setting that an unknown name probably stands for: spelled nearly so, or called so by another trainer."""
    parent, _, name = field.rpartition(".")
    known = [each.name for each in _settings() if name in each.also or each.name.rpartition(".")[2] == name]
    inside = [path for path in known if path.rpartition(".")[0] == parent]
    if known:
        return next(iter(inside or known))
    near = difflib.get_close_matches(name, list(_fields_of(parent)), n=1)
    return ".".join([*filter(None, [parent]), near[0]]) if near else None


def _fields_of(section: str) -> dict[str, Any]:
    """The settings of a section by its dotted name; of a list, those of its entries."""
    model: Any = Config
    for part in section.split(".") if section else []:
        if part.isdigit():
            continue
        info = model.model_fields.get(part) if model else None
        model = section_in(info.annotation) if info else None
    return model.model_fields if model else {}


@cache
def _settings() -> tuple[Setting, ...]:
    """Every setting outside of lists."""
    return tuple(settings_of(Config))
