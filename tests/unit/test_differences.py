"""What an edit changes, word by word."""

from __future__ import annotations

import time

import pytest

from trainer.curation.steps import Change
from ui.dataset.differences import PER_PAGE, differences, fingerprint, marked


@pytest.mark.parametrize(
    ("before", "after", "left", "right"),
    [
        ("a red cat", "a blue cat", ["red"], ["blue"]),
        ("a cat", "a cat, new", [], [", new"]),
        ("", "new", [], ["new"]),
        ("old", "", ["old"], []),
        ("a\nb", "a, b", ["\n"], [", "]),
        ("same", "same", [], []),
    ],
)
def test_changed_words_are_marked(before: str, after: str, left: list[str], right: list[str]) -> None:
    old, new = marked(before, after)
    assert "".join(text for text, _ in old) == before
    assert "".join(text for text, _ in new) == after
    assert [text for text, other in old if other] == left
    assert [text for text, other in new if other] == right


def test_long_captions_are_marked_as_a_whole_and_at_once() -> None:
    started = time.process_time()
    before = "word " * 50_000
    assert marked(before, before + "more") == ([(before, True)], [(before + "more", True)])
    assert time.process_time() - started < 1


def test_pages_of_changes() -> None:
    changes = [Change(f"{number}.txt", None, "new") for number in range(PER_PAGE + 1)]
    page = differences(changes, 7)
    assert (page["count"], page["page"], page["pages"], page["first"]) == (PER_PAGE + 1, 1, 2, PER_PAGE)
    assert [row["name"] for row in page["rows"]] == [f"{PER_PAGE}.txt"]
    assert differences([], 0) == {"count": 0, "page": 0, "pages": 1, "first": 0, "rows": []}
    assert fingerprint(changes) == fingerprint(list(changes))
    assert fingerprint(changes) != fingerprint(changes[1:])
    assert fingerprint([Change("a", None, "x")]) != fingerprint([Change("a", "", "x")])
