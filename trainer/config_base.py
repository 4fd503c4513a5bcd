"""What every section of the config is made of.

The docstring under a field is its tooltip. ``setting(...)`` adds what form and reference need: a label, whether the
field belongs to the basic ones, the names other trainers use for it (searches find those too), and when it has an
effect at all.
A field whose type allows a single value exists so that complete configs can be read; the form does not show it.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from trainer.config_relevance import Relevance

Size = Annotated[int, Field(ge=64, le=4096, multiple_of=8)]


def _works_as_file_name(name: str) -> str:
    if name != name.strip() or name.startswith(".") or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name):
        raise ValueError('must work as a file name: no / \\ : * ? " < > |, no dot or space in front')
    return name


FileName = Annotated[str, Field(min_length=1, max_length=80), AfterValidator(_works_as_file_name)]
"""A file's name without its ending, on every system and in any folder."""
Probability = Annotated[float, Field(ge=0, le=1)]


def setting(
    default: Any,
    label: str,
    *,
    basic: bool = False,
    also: tuple[str, ...] = (),
    relevant: Relevance | None = None,
    **constraints: Any,
) -> Any:
    """A pydantic field with what the form needs to know about it.

    Args:
        default: the one place where this default exists.
        label: the field's name on the page.
        basic: shown without unfolding "all settings".
        also: what other trainers call it.
        relevant: what other settings must be for this one to have an effect; None where it always has.
        constraints: passed to ``pydantic.Field`` (``ge``, ``le``, ``multiple_of`` ...).
    """
    extra: dict[str, Any] = {"label": label, "basic": basic, "also": list(also), "relevant": relevant}
    if isinstance(default, type) and issubclass(default, BaseModel):
        return Field(default_factory=default, json_schema_extra=extra, **constraints)
    return Field(default=default, json_schema_extra=extra, **constraints)


def _takes_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or isinstance(annotation, bool) or any(map(_takes_bool, get_args(annotation)))


class Section(BaseModel):
    """What all parts of the config share: unknown keys are refused, docstrings become descriptions."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yaml_pitfalls(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty section (`train:`) is one without changes; `yes` and `on` are not the number 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if value is None and isinstance(annotation, type) and issubclass(annotation, Section):
            return {}
        if isinstance(value, bool) and not _takes_bool(annotation):
            raise ValueError(f"{str(value).lower()} is not allowed here; it is not a yes-or-no setting")
        return value
