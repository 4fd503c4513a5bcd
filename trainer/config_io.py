"""Reading and writing configs: YAML files, ``a.b=value`` overrides, presets, and one message per problem."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from trainer.config import CONFIG_VERSION, Config
from trainer.errors import Problem, UserError
from trainer.files import write_text

PRESETS_DIR = Path(__file__).resolve().parent.parent / "presets"


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a config file, apply ``a.b=value`` overrides and validate everything at once.

    Relative dataset folders are taken from the config file's own folder. Raises UserError with every problem.
    """
    values = read_yaml(path)
    for override in overrides or []:
        apply_override(values, override)
    config = parse_config(values)
    for source in config.dataset.sources:
        source.path = str((path.parent / Path(source.path).expanduser()).resolve())
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping. Raises UserError when it cannot be read or is something else."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "config.unreadable", f"The config {path} cannot be read: {error}.", "Check the path."
        ) from error
    except yaml.YAMLError as error:
        where = (
            f" in line {error.problem_mark.line + 1}"
            if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark
            else ""
        )
        raise UserError(
            "config.yaml", f"{path.name} is not valid YAML{where}.", "Check indentation and colons there."
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(
            "config.not_a_mapping",
            f"{path.name} holds a {type(values).__name__}, not settings.",
            "Write `name: value` lines.",
        )
    return values


def parse_config(values: dict[str, Any]) -> Config:
    """Validate plain values. Raises UserError with one problem per wrong field."""
    version = values.get("version", CONFIG_VERSION)
    if isinstance(version, int) and version > CONFIG_VERSION:
        raise UserError(
            "config.newer",
            f"version: {version} was written by a newer LoRA Atelier; this one reads up to {CONFIG_VERSION}.",
            "Update the program, or save the settings again with this one.",
            field="version",
        )
    try:
        return Config.model_validate(values)
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
    target = values
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise UserError(
                "config.override", f"--set {name}: {key} is a value, not a section.", "Check the name.", field=name
            )
    try:
        target[keys[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(
            "config.override", f"--set {name}: {text!r} is not a YAML value.", "Put text in quotes.", field=name
        ) from error


def dump_config(config: Config) -> str:
    """The complete config as YAML, in the model's order."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def dump_changes(config: Config) -> str:
    """Only what differs from the defaults, as YAML: what a preset file holds."""
    changes = config.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump({"version": CONFIG_VERSION, **changes}, sort_keys=False, allow_unicode=True, width=120)


def save_config(config: Config, path: Path) -> None:
    """Write the complete config atomically."""
    write_text(path, dump_config(config))


def problems_of(error: ValidationError, values: dict[str, Any]) -> list[Problem]:
    """One Problem per wrong field. Of a field that may take several forms only the best-fitting complaint is kept."""
    by_field: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        field = _field_name(detail["loc"])
        problem = _problem(field, detail)
        known = by_field.get(field)
        if known is None or (known.code == "config.type" and problem.code != "config.type"):
            by_field[field] = problem
    return list(by_field.values())


def _field_name(location: tuple[int | str, ...]) -> str:
    """The dotted name of a pydantic location, without pydantic's names for the branches of a union."""
    parts = [
        str(part)
        for part in location
        if not (isinstance(part, str) and ("[" in part or part.startswith("constrained-")))
    ]
    return ".".join(parts)


def _problem(field: str, detail: Any) -> Problem:
    kind, given, limits = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(field.rpartition(".")[2], _siblings(field), n=1)
        parent = field.rpartition(".")[0]
        suggestion = (
            f"Did you mean {f'{parent}.' if parent else ''}{near[0]}?"
            if near
            else "Remove it, or check its spelling and indentation."
        )
        return Problem("config.unknown_key", f"{field} is not a setting.", suggestion, field)
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
    bounds = {
        "greater_than_equal": f"{limits.get('ge')} or more",
        "greater_than": f"more than {limits.get('gt')}",
        "less_than_equal": f"{limits.get('le')} or less",
        "less_than": f"less than {limits.get('lt')}",
        "literal_error": limits.get("expected"),
        "string_pattern_mismatch": f"text of the form {limits.get('pattern')}",
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
    if isinstance(given, float) and not math.isfinite(given):
        return str(given)
    text = repr(given)
    return text if len(text) <= 60 else text[:57] + "..."


def _siblings(field: str) -> list[str]:
    """The names that would have been right beside ``field``."""
    model: Any = Config
    for part in field.split(".")[:-1]:
        info = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if info is None:
            return []
        model = info.annotation
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
