"""What the config model says of each setting: for the form, the command `trainer settings` and the reference page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trainer.config_allowed import Schema, allows_null, choices_of, forms_of
from trainer.config_relevance import Relevance

_NOT_OF_THE_TYPE = {"title", "description", "default", "label", "basic", "also", "relevant"}


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: dotted config name such as ``train.learning_rate``; ``*`` stands for any entry of a list.
        group: label of the part of its section, such as ``Buckets``; empty for the section itself.
        basic: whether it belongs to those that are shown first.
        also: what other trainers call it.
        schema: what it may be, as JSON Schema; sections in it are plain objects.
        required: whether it must be given, because there is no default.
        relevant: what other settings must be for this one to have an effect; None where it always has.
        entries: the section that it holds, as an option or in a list; None for plain values.
    """

    name: str
    label: str
    help: str
    group: str
    basic: bool
    also: tuple[str, ...]
    schema: Schema
    required: bool
    default: Any
    relevant: Relevance | None
    entries: type[BaseModel] | None

    @property
    def section(self) -> str:
        """First part of the name; empty for settings at the top of the config."""
        return self.name.partition(".")[0] if "." in self.name else ""

    @property
    def optional(self) -> bool:
        """Whether it may be ``null``."""
        return allows_null(self.schema)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values it may have, or each of its entries; empty where that cannot be listed."""
        listed = choices_of(self.schema)
        return (None, *listed) if listed and self.optional else listed

    @property
    def names(self) -> list[str]:
        """Everything it is called: label first, then dotted and short name, then other trainers' names."""
        return list(dict.fromkeys([self.label, self.name, self.name.rpartition(".")[2], *self.also]))

    @property
    def inner(self) -> str | None:
        """What the names of the settings in ``entries`` begin with; None where there are none."""
        if self.entries is None:
            return None
        return f"{self.name}.*" if forms_of(self.schema)[0]["type"] == "array" else self.name

    @property
    def fixed(self) -> bool:
        """Whether only one value is possible: it is there for complete configs, not for choosing."""
        return len(self.choices) == 1


def settings_of(model: type[BaseModel], prefix: str = "", group: str = "") -> Iterator[Setting]:
    """All settings of a model, in its order, those of its sections in their places."""
    schema = model.model_json_schema()
    yield from _walk(model, schema["properties"], schema.get("$defs", {}), prefix, group)


def every_setting(model: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """The same, and behind each setting that holds a section, alone or in a list, the settings of that."""
    for setting in settings_of(model, prefix):
        yield setting
        if setting.entries is not None:
            yield from every_setting(setting.entries, f"{setting.inner}.")


def label_of(name: str, info: FieldInfo) -> str:
    """The label given in the model, or the name in words."""
    return str(_extra(info).get("label") or name.replace("_", " ").capitalize())


def summary_of(model: Any) -> str:
    """What a section is, in its docstring's first line."""
    return (model.__doc__ or "").strip().partition("\n")[0]


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, alone, as an option or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := section_in(inner))), None)


def _walk(
    model: type[BaseModel], properties: Schema, sections: Mapping[str, Schema], prefix: str, group: str
) -> Iterator[Setting]:
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            of_inner = sections[_referred(properties[name])]["properties"]
            yield from _walk(inner, of_inner, sections, f"{prefix}{name}.", label_of(name, info) if prefix else "")
        else:
            yield _setting(f"{prefix}{name}", info, properties[name], group)


def _setting(full_name: str, info: FieldInfo, schema: Schema, group: str) -> Setting:
    extra = _extra(info)
    default = info.get_default(call_default_factory=True)
    return Setting(
        name=full_name,
        label=label_of(full_name.rpartition(".")[2], info),
        help=" ".join((info.description or "").split()),
        group=group,
        basic=bool(extra.get("basic")),
        also=tuple(map(str, extra.get("also", ()))),
        schema={key: _plain(value) for key, value in schema.items() if key not in _NOT_OF_THE_TYPE},
        required=info.is_required(),
        default=None if default is PydanticUndefined else default,
        relevant=extra.get("relevant"),
        entries=section_in(info.annotation),
    )


def _extra(info: FieldInfo) -> Mapping[str, Any]:
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def _referred(schema: Schema) -> str:
    """The name of the section that a schema points at."""
    return str(schema["$ref"].rpartition("/")[2])


def _plain(part: Any) -> Any:
    """A part of a schema in which sections are plain objects."""
    if isinstance(part, list):
        return [_plain(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {"type": "object"} if "$ref" in part else {key: _plain(value) for key, value in part.items()}
