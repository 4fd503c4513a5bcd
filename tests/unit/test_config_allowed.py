"""What numbers may be is told in words, read from the same limits that the config checks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, create_model

from trainer.config_allowed import allowed_in_words, choices_of, in_yaml, listed, range_of
from trainer.config_base import Probability, Size
from trainer.yaml_texts import load_yaml
from ui.fields import CONFIG_FIELDS


def schema_of(annotation: Any, **limits: Any) -> dict[str, Any]:
    """What pydantic says of a field with limits."""
    return create_model("Model", value=(annotation, Field(**limits))).model_json_schema()["properties"]["value"]


@pytest.mark.parametrize(
    ("annotation", "limits", "words"),
    [
        (int, {"ge": 1, "le": 1024}, "From 1 to 1024."),
        (int, {"ge": 0}, "0 or more."),
        (int, {"ge": 0, "lt": 2**63}, "0 or more."),
        (int, {"ge": 1, "le": 10_000_000}, "1 or more."),
        (float, {"gt": 0}, "Above 0."),
        (float, {"gt": 0, "lt": 1}, "Above 0, below 1."),
        (float | None, {"gt": 0, "le": 1000}, "Above 0, up to 1000."),
        (float, {"le": 5}, "Up to 5."),
        (float, {"lt": 5}, "Below 5."),
        (Annotated[float, Field(ge=0, lt=1)], {}, "From 0, below 1."),
        (Probability, {"lt": 1}, "From 0, below 1."),
        (Size, {}, "From 64 to 4096, a multiple of 8."),
        (Size | None, {}, "From 64 to 4096, a multiple of 8."),
        (float, {}, ""),
    ],
)
def test_limits_in_words(annotation: Any, limits: dict[str, Any], words: str) -> None:
    assert range_of(schema_of(annotation, **limits)) == words


def test_only_numbers_that_explain_themselves_have_no_range() -> None:
    told = {field.name for field in CONFIG_FIELDS if field.kind == "number" and not field.allowed}
    assert told == {"train.lr_warmup_steps", "train.lr_decay_steps"}


@pytest.mark.parametrize(
    ("annotation", "limits", "words", "choices"),
    [
        (int, {"ge": 1, "le": 10_000_000}, "whole number (from 1 to 10000000)", ()),
        (float | None, {"gt": 0}, "number (above 0), or `null`", ()),
        (float, {"ge": -1, "le": 1.75}, "number (from -1 to 1.75)", ()),
        (bool, {}, "`true` or `false`", ()),
        (Literal["no", "on", "a"], {}, "`'no'`, `'on'` or `a`", ("no", "on", "a")),
        (Literal[False, "mask"], {}, "`false` or `mask`", (False, "mask")),
        (Literal["one"], {}, "`one`", ("one",)),
        (list[Literal["a", "b"]], {}, "list of any of `a` or `b`", ("a", "b")),
        (str, {}, "text", ()),
        (str, {"min_length": 1}, "text (not empty)", ()),
        (str, {"min_length": 1, "max_length": 80}, "text (1 to 80 characters)", ()),
        (str, {"pattern": "^a+$"}, "text (of the form `^a+$`)", ()),
        (list[str], {}, "list of texts", ()),
        (list[tuple[Size, Size]], {}, "list of pairs of whole numbers (from 64 to 4096, a multiple of 8)", ()),
        (dict[str, Annotated[int, Field(ge=0)]], {}, "mapping of texts to whole numbers (0 or more)", ()),
        (dict[str, Any], {}, "mapping", ()),
        (int | Annotated[float, Field(gt=0, lt=1)], {}, "whole number, or number (above 0, below 1)", ()),
    ],
)
def test_everything_that_is_allowed_in_words(
    annotation: Any, limits: dict[str, Any], words: str, choices: tuple[Any, ...]
) -> None:
    schema = schema_of(annotation, **limits)
    assert allowed_in_words(schema) == words
    assert choices_of(schema) == choices


@pytest.mark.parametrize(
    "value", [None, True, 0, 1e-05, "", "no", "1", ",", "|||", "ä: #", [], {}, ["kohya"], "x " * 99]
)
def test_values_are_written_as_yaml_reads_them(value: Any) -> None:
    assert load_yaml(in_yaml(value)) == value
    assert "\n" not in in_yaml(value)
    assert in_yaml(value) in listed((value,))
