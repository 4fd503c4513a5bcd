"""Prompt templates and the trigger word in them."""

from __future__ import annotations

import pytest

from trainer.captioners import CAPTIONERS
from trainer.captioners.prompts import TEMPLATES, fill, with_trigger


@pytest.mark.parametrize(
    ("prompt", "trigger", "expected"),
    [
        ("Call it {trigger}. Be brief.", "ohwx", "Call it ohwx. Be brief."),
        ("Be brief. Call it {trigger}!", " ", "Be brief."),
        ("Name {trigger} first, then {trigger} again. Go on.", "", "Go on."),
        ("First line\nthe {trigger} line\nlast line", "", "First line\n\nlast line"),
        ("Nothing to fill.", "ohwx", "Nothing to fill."),
        ("{trigger}", "", ""),
        (r"{trigger}", r"a\1b", r"a\1b"),
    ],
)
def test_filling(prompt: str, trigger: str, expected: str) -> None:
    assert fill(prompt, trigger) == expected


def test_only_texts_are_filled() -> None:
    values = {"prompt": "Call it {trigger}.", "name": "{trigger}", "batch_size": 4}
    assert with_trigger(values, "ohwx") == {"prompt": "Call it ohwx.", "name": "ohwx", "batch_size": 4}
    assert with_trigger(values, "") == {"prompt": "", "name": "", "batch_size": 4}
    assert values["name"] == "{trigger}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_speak_of_the_trigger_word_if_there_is_one(name: str) -> None:
    text = TEMPLATES[name].text  # type: ignore[index]
    assert "ohwx" in fill(text, "ohwx")
    bare = fill(text, "")
    assert bare
    assert "{" not in bare
    assert "  " not in bare


def test_defaults_can_be_used_without_a_trigger_word() -> None:
    for kind in CAPTIONERS.values():
        assert "{trigger}" not in str(getattr(kind.options(), "prompt", ""))
