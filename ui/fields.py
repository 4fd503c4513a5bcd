"""Settings as fields: how the value of each is edited, how it is shown, and how it is read back.

No Gradio here. A setting added to the model appears by itself; a type that nothing below knows is edited as YAML.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from trainer.config import Config, SamplePrompt
from trainer.config_allowed import forms_of, range_of
from trainer.config_facts import Setting, settings_of
from trainer.errors import UserError
from trainer.prompt_lines import format_line, parse_lines
from trainer.yaml_texts import YamlError, dump_yaml, load_yaml

Kind = Literal["switch", "choice", "number", "text", "paragraph", "lines", "yaml", "resolution", "prompts", "rows"]

SPECIAL: dict[str, Kind] = {
    "dataset.resolution": "resolution",
    "samples.prompts": "prompts",
    "dataset.sources": "rows",
}


@dataclass(frozen=True)
class Field(Setting):
    """One setting as the form sees it."""

    kind: Kind

    @property
    def allowed(self) -> str:
        """What numbers are allowed, in words; empty where anything is."""
        return range_of(self.schema)

    def show(self, value: Any) -> Any:
        """A plain config value (as ``model_dump`` gives it) as the field shows it."""
        return _SHOW[self.kind](value)

    def read(self, shown: Any) -> Any:
        """What the field holds as a plain value, checked by the config only. Raises UserError for broken YAML."""
        if shown in (None, "") and self.optional and self.kind != "choice":
            return None
        if self.kind == "yaml":
            return _read_yaml(self, shown)
        return _READ[self.kind](shown)


def fields_of(model: type[BaseModel], prefix: str = "", group: str = "") -> list[Field]:
    """All settings of a model, in its order; those whose type allows a single value are left out."""
    settings = settings_of(model, prefix, group)
    return [Field(**vars(setting), kind=_kind(setting)) for setting in settings if not setting.fixed]


def choice_label(choice: Any) -> str:
    """What a choice is called on the page."""
    if choice is None:
        return "none"
    return "off" if choice is False else str(choice)


def put_value(plain: dict[str, Any], name: str, value: Any) -> None:
    """Put a plain value into nested values under its dotted name."""
    *parents, last = name.split(".")
    for part in parents:
        plain = plain.setdefault(part, {})
    plain[last] = value


def _kind(setting: Setting) -> Kind:
    """How it is edited."""
    if setting.name in SPECIAL:
        return SPECIAL[setting.name]
    forms = forms_of(setting.schema)
    types = {form.get("type") for form in forms}
    if len(forms) == 1 and {"enum", "const"} & set(forms[0]):
        return "choice"
    if types <= {"integer", "number"}:
        return "number"
    if types == {"array"} and forms[0]["items"].get("type") == "string":
        return "lines"
    kinds: dict[Any, Kind] = {"boolean": "switch", "string": "text"}
    return kinds.get(forms[0].get("type"), "yaml") if len(forms) == 1 else "yaml"


def _show_number(value: Any) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def _read_number(shown: Any) -> Any:
    text = str(shown).strip()
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _show_yaml(value: Any) -> str:
    if value in (None, {}, []):
        return ""
    return dump_yaml(value).strip()


def _read_yaml(field: Field, shown: Any) -> Any:
    if not str(shown or "").strip():
        return None if field.optional else type(field.default)()
    try:
        return load_yaml(shown)
    except YamlError as error:
        raise UserError(
            "config.yaml",
            f"{field.name}: this is not valid YAML{error}.",
            "Write one `name: value` a line.",
            field.name,
        ) from error


def _show_resolution(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    if len(value) == 1 and not isinstance(value[0], list | tuple):
        return f"[{value[0]}]"  # a list of one side is kept apart from the side itself
    return ", ".join(f"{item[0]}x{item[1]}" if isinstance(item, list | tuple) else str(item) for item in value)


def _read_resolution(shown: Any) -> Any:
    text = str(shown).strip()
    inner = text.strip("[]")
    sides = [_side(part.strip()) for part in inner.split(",")]
    if len(sides) == 1 and isinstance(sides[0], int) and inner == text:
        return sides[0]
    return text if any(isinstance(side, str) for side in sides) else sides


def _side(text: str) -> Any:
    pair = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", text)
    if pair:
        return [int(pair[1]), int(pair[2])]
    return int(text) if text.isdigit() else text


def _show_prompts(value: Any) -> str:
    defaults = SamplePrompt.model_validate({}).model_dump()
    return "\n".join(format_line(prompt, defaults) for prompt in value)


_SHOW = {
    "switch": bool,
    "choice": lambda value: value,
    "number": _show_number,
    "text": lambda value: "" if value is None else value,
    "paragraph": lambda value: "" if value is None else value,
    "lines": "\n".join,
    "yaml": _show_yaml,
    "resolution": _show_resolution,
    "prompts": _show_prompts,
    "rows": list,
}
_READ = {
    "switch": bool,
    "choice": lambda shown: shown,
    "number": _read_number,
    "text": lambda shown: shown or "",
    "paragraph": lambda shown: shown or "",
    "lines": lambda shown: [line for line in (shown or "").splitlines() if line.strip()],
    "resolution": _read_resolution,
    "prompts": lambda shown: parse_lines(shown or ""),
    "rows": list,
}

CONFIG_FIELDS: tuple[Field, ...] = tuple(fields_of(Config))
