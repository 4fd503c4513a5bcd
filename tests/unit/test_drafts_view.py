"""Drafts as the page shows them: states, pages, and differences word by word."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.captioners.drafts import Draft, DraftFile
from trainer.data.own_captions import OwnCaption
from trainer.runs.store import Workspace
from ui.dataset.drafts_view import PER_PAGE, DraftQuery, difference, drafts_view, key, query_in, undecided
from ui.dataset.library import Entry, Listing


def entry(folder: Path, number: int, stored: str | None) -> Entry:
    path = folder / f"{number:03}.png"
    return Entry(path.name, path, OwnCaption(stored or "", path.with_suffix(".txt"), stored), f"{number:03}.txt")


def draft(number: int, before: str | None = None) -> Draft:
    return Draft(f"{number:03}.png", f"{number:03}.txt", before, before or "", "new")


@pytest.fixture
def drafts(tmp_path: Path) -> DraftFile:
    return DraftFile.review(Workspace(tmp_path / "workspace"), tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a red cat", "a blue cat", [("same", "a "), ("old", "red"), ("new", "blue"), ("same", " cat")]),
        ("", "new", [("new", "new")]),
        ("one\ntwo", "one", [("same", "one"), ("old", "\ntwo")]),
        ("same", "same", [("same", "same")]),
    ],
)
def test_difference(old: str, new: str, expected: list[tuple[str, str]]) -> None:
    assert difference(old, new) == expected


def test_very_long_texts_are_not_compared_word_by_word() -> None:
    old, new = "a " * 2000, "b " * 2000
    assert difference(old, new) == [("old", old), ("new", new)]


def test_what_is_written_gone_or_not_ours_is_left_out(drafts: DraftFile, tmp_path: Path) -> None:
    drafts.add([draft(0), draft(1, "old"), draft(2), draft(3), draft(9)])
    drafts.add([Draft("004.png", "../evil.txt", None, "", "evil"), draft(3).decided("accepted")])
    held = [None, "theirs", "new", None, None]
    listing = Listing(tmp_path, tuple(entry(tmp_path, number, text) for number, text in enumerate(held)))
    states = {one.draft.name: one.state for one in undecided(drafts, listing)}
    assert states == {"000.png": "open", "001.png": "conflict", "003.png": "accepted"}

    view = drafts_view(
        undecided(drafts, listing), DraftQuery(7, "conflict"), tmp_path, lambda some: ["thumb"] * len(some)
    )
    assert (view["total"], view["matching"], view["page"], view["counts"]["accepted"]) == (3, 1, 0, 1)
    assert view["cards"][0]["old"] == "theirs"


def test_pages(drafts: DraftFile, tmp_path: Path) -> None:
    drafts.add([draft(number) for number in range(PER_PAGE + 1)])
    listing = Listing(tmp_path, tuple(entry(tmp_path, number, None) for number in range(PER_PAGE + 1)))
    view = drafts_view(undecided(drafts, listing), DraftQuery(1), tmp_path, lambda some: [""] * len(some))
    assert [card["name"] for card in view["cards"]] == [f"{PER_PAGE:03}.png"]
    assert (view["pages"], view["first"]) == (2, PER_PAGE)


def test_the_key_says_what_is_shown(drafts: DraftFile, tmp_path: Path) -> None:
    before = key(tmp_path, drafts.version, DraftQuery(2, "open"))
    assert query_in(before, tmp_path) == DraftQuery(2, "open")
    assert query_in(before, tmp_path / "other") == query_in("", tmp_path) == DraftQuery()
    drafts.add([draft(0)])
    assert key(tmp_path, drafts.version, DraftQuery(2, "open")) != before
    assert DraftQuery.of({"page": -1, "show": "evil"}) == DraftQuery()
