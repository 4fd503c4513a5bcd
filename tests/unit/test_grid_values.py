"""Values as people type them, against a table worked out by hand; the first rows are A1111's own examples."""

from __future__ import annotations

import pytest

from trainer.errors import UserError
from trainer.grids.axes import read_axis
from trainer.grids.spec import as_given
from trainer.grids.values import MAX_VALUES, read_numbers, split_lines, split_values


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("1-5", [1, 2, 3, 4, 5]),
        ("1-5 (+2)", [1, 3, 5]),
        ("10-5 (-3)", [10, 7]),
        ("1-10 [5]", [1, 3, 5, 7, 10]),
        ("7", [7]),
        ("-3", [-3]),
        ("5-1", [5, 4, 3, 2, 1]),
        ("-2--1", [-2, -1]),
        ("-1 - 1 [3]", [-1, 0, 1]),
        ("4-9 [1]", [4]),
    ],
)
def test_whole_numbers(entry: str, expected: list[int]) -> None:
    found = read_numbers(entry, whole=True)
    assert found == expected
    assert all(type(number) is int for number in found)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("1-3 (+0.5)", [1, 1.5, 2, 2.5, 3]),
        ("0.0-1.0 [6]", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ("0-1 [5]", [0, 0.25, 0.5, 0.75, 1]),
        ("0.4-1.2 (+0.2)", [0.4, 0.6, 0.8, 1.0, 1.2]),
        (".5", [0.5]),
        ("1-0 [3]", [1, 0.5, 0]),
        ("0-1 [4]", [0, 0.333333, 0.666667, 1]),
    ],
)
def test_numbers(entry: str, expected: list[float]) -> None:
    assert read_numbers(entry, whole=False) == expected


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("abc", "'abc' is not a number or a range"),
        ("1e99999999", "is not a number or a range"),
        ("1.5", "not in whole numbers"),
        ("1-3 (-1)", "steps of -1 do not lead from 1 to 3"),
        ("1-3 (0)", "steps of 0"),
        ("1-3 [0]", r"at least \[1\]"),
        ("1-2000", "2,000 values"),
        ("1-2 [999999999999]", f"at most {MAX_VALUES:,}"),
        ("1--", "not a number"),
    ],
)
def test_what_is_wrong_is_told(entry: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_numbers(entry, whole=True)


def test_lists() -> None:
    assert split_values(' a, "b, c" ,\n d\n\n') == ["a", "b, c", "d"]
    assert split_lines("a cat, sitting\n\n  a dog\r\n") == ["a cat, sitting", "a dog"]


def test_any_line_ends_separate_and_endless_entries_are_told() -> None:
    assert split_values("1\r2\r\n3,4\n") == ["1", "2", "3", "4"]
    with pytest.raises(ValueError, match="far too long"):
        split_values("1, " + "2" * 200_000)
    with pytest.raises(UserError, match="X, Seed: one of the values is far too long"):
        read_axis("x", {"kind": "seed", "values": "2" * 200_000}, as_given)
