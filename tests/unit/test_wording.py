"""The words around and inside a captioner's text, by examples worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trainer.captioners.wording import Wording, cut, joined, unique_lines


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({}, "a cat", "a cat"),
        ({}, "A cat.\n\nIt sleeps.", "A cat. It sleeps."),
        ({"keep_lines": True}, "A cat.\nIt sleeps.", "A cat.\nIt sleeps."),
        ({"trigger": " ohwx "}, "a cat", "ohwx, a cat"),
        ({"trigger": "ohwx"}, "a cat, ohwx, sleeping", "ohwx, a cat, sleeping"),
        ({"trigger": "ohwx"}, "A photo of ohwx on a beach.", "A photo of ohwx on a beach."),
        ({"trigger": "ohwx"}, "ohwxs", "ohwx, ohwxs"),
        ({"trigger": "ohwx"}, "", "ohwx"),
        ({"prefix": "a photo of", "suffix": "outside"}, "a cat", "a photo of a cat outside"),
        ({"trigger": "ohwx", "prefix": "anime,", "suffix": ", 4k"}, "a cat", "ohwx, anime, a cat, 4k"),
        ({"remove": ["The image shows"]}, "The image shows a cat.", "A cat."),
        ({"remove": ["the image shows", "solo"]}, "the image shows a cat, solo", "a cat,"),
        ({"remove": ["cat"]}, "a cat and a catfish", "a and a catfish"),
        ({"replace": ["woman = ohwx", "a.b=c"]}, "A Woman, a womanly axb a.b", "A ohwx, a womanly axb c"),
        ({"replace": [r"woman=\1 {x}"]}, "a woman", r"a \1 {x}"),
        ({"lower": True, "trigger": "OHWX"}, "A Cat", "OHWX, a cat"),
        ({"dot": "never", "suffix": ", 4k"}, "A cat.", "A cat, 4k"),
        ({"dot": "always"}, "A cat", "A cat."),
        ({"dot": "always"}, "A cat!", "A cat!"),
        ({"longest": 4}, "A cat sleeps. It dreams of fish.", "A cat sleeps."),
    ],
)
def test_wording(options: dict[str, Any], text: str, expected: str) -> None:
    assert Wording(**options).caption(text) == expected


@pytest.mark.parametrize(
    "options", [{"replace": ["woman"]}, {"replace": ["= ohwx"]}, {"longest": 0}, {"unit": "pages"}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Wording(**options)


@pytest.mark.parametrize(
    ("text", "longest", "unit", "expected"),
    [
        ("one two. three four. five.", 4, "words", "one two. three four."),
        ("one two. three four. five.", 2, "sentences", "one two. three four."),
        ("one two three, four five, six", 5, "words", "one two three, four five"),
        ("one two three four", 3, "words", "one two three"),
        ("1girl, red hair, smile", 4, "tokens", "1girl"),  # 1, girl, a comma, and red: the next part would not fit
        ("short", 10, "words", "short"),
        ("abcdefghijklmnopqrstuvwxyz", 1, "tokens", ""),
    ],
)
def test_cut(text: str, longest: int, unit: Any, expected: str) -> None:
    assert cut(text, longest, unit) == expected


@pytest.mark.parametrize(
    ("old", "new", "in_front", "new_line", "expected"),
    [
        ("a, b", "b, c, c", False, False, "a, b, c"),
        ("a, b", "b, c", True, False, "c, a, b"),
        ("a, b", "b", False, False, "a, b"),
        ("a,  b ,", "c", False, False, "a,  b, c"),
        ("A cat sleeps.", "It dreams.", False, False, "A cat sleeps. It dreams."),
        ("one\n\ntwo", "c", False, False, "one, c\n\ntwo, c"),
        ("one", "two", False, True, "one\ntwo"),
        ("one", "two", True, True, "two\none"),
        ("one\ntwo", "two", False, True, "one\ntwo"),
        ("", "new", False, False, "new"),
        (" \n", "new", True, True, "new"),
        ("old", "", False, False, "old"),
    ],
)
def test_joined(old: str, new: str, in_front: bool, new_line: bool, expected: str) -> None:
    assert joined(old, new, in_front=in_front, new_line=new_line) == expected


def test_equal_lines_stand_once() -> None:
    assert unique_lines(["a", "", "b", "a"]) == "a\nb"
