"""From the config model to fields: what each setting is called, how its value is shown, and how it is read back.

No Gradio here. A setting added to the model appears by itself; a type that nothing below knows is edited as YAML.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trainer.config import Config, SamplePrompt
from trainer.config_relevance import Relevance
from trainer.errors import UserError
from trainer.prompt_lines import format_line, parse_lines
from trainer.yaml_texts import YamlError, dump_yaml, load_yaml
from ui.ranges import range_of

Kind = Literal["switch", "choice", "number", "text", "paragraph", "lines", "yaml", "resolution", "prompts", "rows"]

SPECIAL: dict[str, Kind] = {
    "dataset.resolution": "resolution",
    "samples.prompts": "prompts",
    "dataset.sources": "rows",
}


@dataclass(frozen=True)
class Field:
    """One setting as the form sees it.

    Attributes:
        name: dotted config name such as ``train.learning_rate``.
        group: label of the part of its section, such as ``Buckets``; empty for the section itself.
        also: what other trainers call it.
        optional: whether an empty field means ``null``.
        allowed: what numbers are allowed, in words; empty where anything is.
        relevant: what other settings must be for this one to have an effect; None where it always has.
    """

    name: str
    label: str
    help: str
    group: str
    basic: bool
    also: tuple[str, ...]
    kind: Kind
    choices: tuple[Any, ...]
    optional: bool
    default: Any
    allowed: str = ""
    relevant: Relevance | None = None

    @property
    def section(self) -> str:
        """First part of the name; empty for settings at the top of the config."""
        return self.name.partition(".")[0] if "." in self.name else ""

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
    return list(_walk(model, prefix, group))


def choice_label(choice: Any) -> str:
    """What a choice is called on the page."""
    if choice is None:
        return "none"
    return "off" if choice is False else str(choice)


def label_of(name: str, info: FieldInfo) -> str:
    """The label given in the model, or the name in words."""
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return str(extra.get("label") or name.replace("_", " ").capitalize())


def put_value(plain: dict[str, Any], name: str, value: Any) -> None:
    """Put a plain value into nested values under its dotted name."""
    *parents, last = name.split(".")
    for part in parents:
        plain = plain.setdefault(part, {})
    plain[last] = value


def _walk(model: type[BaseModel], prefix: str, group: str) -> Iterator[Field]:
    for name, info in model.model_fields.items():
        full_name = f"{prefix}{name}"
        annotation = _plain(info.annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _walk(annotation, f"{full_name}.", label_of(name, info) if prefix else "")
        elif not _is_fixed(annotation, info):
            yield _field(full_name, name, info, group)


def _field(full_name: str, name: str, info: FieldInfo, group: str) -> Field:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    inner, optional = _without_none(_plain(info.annotation))
    kind = SPECIAL.get(full_name) or _kind(inner)
    default = info.get_default(call_default_factory=True)
    also = extra.get("also", [])
    return Field(
        name=full_name,
        label=label_of(name, info),
        help=" ".join((info.description or "").split()),
        group=group,
        basic=bool(extra.get("basic")),
        also=tuple(map(str, also)) if isinstance(also, list) else (),
        kind=kind,
        choices=_choices(inner, kind, optional),
        optional=optional,
        default=None if default is PydanticUndefined else default,
        allowed=range_of(info) if kind == "number" else "",
        relevant=extra.get("relevant"),  # type: ignore[arg-type]
    )


def _kind(annotation: Any) -> Kind:
    if annotation is bool:
        return "switch"
    forms = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if {_plain(form) for form in forms} - {type(None)} <= {int, float}:
        return "number"
    if annotation is str:
        return "text"
    if get_origin(annotation) is Literal:
        return "choice"
    if get_origin(annotation) is list and _is_word(_plain(get_args(annotation)[0])):
        return "lines"
    return "yaml"


def _choices(annotation: Any, kind: Kind, optional: bool) -> tuple[Any, ...]:
    """What the field may hold, or each of its lines; empty where that cannot be listed."""
    if kind == "lines":
        each = _plain(get_args(annotation)[0])
        return get_args(each) if get_origin(each) is Literal else ()
    return ((None,) if optional else ()) + get_args(annotation) if kind == "choice" else ()


def _is_word(annotation: Any) -> bool:
    """Whether it is text, or one of some texts."""
    if get_origin(annotation) is Literal:
        return all(isinstance(value, str) for value in get_args(annotation))
    return annotation is str


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    members = [member for member in get_args(annotation) if member is not type(None)]
    optional = len(members) < len(get_args(annotation))
    return (_plain(members[0]) if len(members) == 1 else annotation), optional


def _is_fixed(annotation: Any, info: FieldInfo) -> bool:
    """Whether only one value is possible: the setting is there for complete configs, not for choosing."""
    if annotation is type(None):
        return True
    if get_origin(annotation) is Literal:
        return len(get_args(annotation)) == 1
    if get_origin(annotation) is list:
        return _is_fixed(get_args(annotation)[0], info) or any(
            getattr(limit, "max_length", None) == 0 for limit in info.metadata
        )
    return False


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
