"""The operations of the form: options are read, told when wrong, and each does what its name says."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from trainer.curation.operations import OPERATIONS, operation
from trainer.errors import UserError
from ui.fields import fields_of

COUNTS = {"cat": 5, "dog": 2, "bird": 1, "Red_Hair": 3, "^_^": 3}

EXAMPLES: dict[str, tuple[dict[str, Any], str, str]] = {
    "replace": ({"find": "cat", "replacement": "lion"}, "cat, catfish", "lion, lionfish"),
    "add": ({"tags": ["new, newer"], "place": "in front"}, "cat", "new, newer, cat"),
    "remove": ({"tags": ["dog", "b*"]}, "cat, dog, bird", "cat"),
    "rename": ({"tags": ["dog", "bird"], "new": "animal"}, "dog, cat, bird", "animal, cat"),
    "trigger": ({"trigger": "ohwx"}, "cat, ohwx", "ohwx, cat"),
    "move": ({"tags": ["bird"], "to": "a position", "position": 2}, "cat, dog, bird", "cat, bird, dog"),
    "sort": ({"order": "rarest first", "keep_first": 1}, "Red_Hair, cat, dog, bird", "Red_Hair, bird, dog, cat"),
    "duplicates": ({}, "red hair, cat, Red_Hair", "red hair, cat"),
    "respell": ({"letters": "lower case"}, "Red_Hair, ^_^", "red hair, ^_^"),
    "around": ({"prefix": "photo of ", "suffix": ", 4k"}, "a cat", "photo of a cat, 4k"),
    "rare": ({}, "cat, bird, dog", "cat, dog"),
    "keep": ({"tags": ["cat", "dog"]}, "cat, bird, dog", "cat, dog"),
    "tidy": ({}, " cat ,,dog", "cat, dog"),
    "join": ({}, "cat\ndog", "cat, dog"),
    "split": ({}, "cat | dog", "cat\ndog"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_does_what_it_says(name: str) -> None:
    options, before, after = EXAMPLES[name]
    chosen = operation(name, options)
    edit = chosen.edit(COUNTS)
    assert edit(before) == after
    assert edit("") == edit("").strip()
    assert chosen.title()
    assert chosen.label and chosen.about.endswith(".")


@pytest.mark.parametrize(
    ("name", "options", "before", "after"),
    [
        ("replace", {"find": "CAT", "what": "whole tags", "match_case": False}, "cat, catfish", "catfish"),
        ("replace", {"find": r"(\w+) (\w+)", "replacement": r"\2 \1", "what": "regular expression"}, "a b", "b a"),
        ("add", {"tags": ["x", "y"], "place": "behind a tag", "behind": "cat"}, "cat, dog", "cat, x, y, dog"),
        ("move", {"tags": ["cat"], "to": "the end"}, "cat, dog", "dog, cat"),
        ("move", {"tags": ["dog"]}, "cat, dog", "dog, cat"),
        ("sort", {}, "dog, Bird, cat", "Bird, cat, dog"),
        ("sort", {"order": "most frequent first"}, "bird, dog, cat", "cat, dog, bird"),
        ("duplicates", {"any_spelling": False}, "a, A, a", "a, A"),
        ("respell", {"between": "underscores"}, "red  hair, cat", "red_hair, cat"),
        ("respell", {"between": "as it is"}, "Red_Hair", "Red_Hair"),
        ("rare", {"fewer_than": 3}, "cat, bird, dog, unknown", "cat"),
    ],
)
def test_options(name: str, options: dict[str, Any], before: str, after: str) -> None:
    assert operation(name, options).edit(COUNTS)(before) == after


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("no such", {}, "No operation is chosen"),
        ("rare", {"fewer_than": "x"}, "fewer_than"),
        ("rare", {"fewer_than": 1}, "fewer_than"),
        ("add", {"place": "nowhere"}, "place"),
        ("add", {"colour": "red"}, "colour"),
    ],
)
def test_wrong_options_are_told(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        operation(name, options)


def test_every_option_fits_the_form() -> None:
    for name, model in OPERATIONS.items():
        for field in fields_of(model, f"edit.{name}."):
            assert field.kind in ("switch", "choice", "number", "text", "lines"), field.name
            assert not field.choices or field.default in field.choices


def test_every_choice_of_an_operation_works() -> None:
    for name, model in OPERATIONS.items():
        for field, info in model.model_fields.items():
            for choice in get_args(info.annotation) if "Literal" in str(info.annotation) else ():
                options = {**EXAMPLES[name][0], field: choice, **({"behind": "cat"} if name == "add" else {})}
                assert isinstance(operation(name, options).edit(COUNTS)("cat, dog"), str)
