"""The table of tags as the browser gets it, and what its buttons do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from trainer.errors import UserError
from ui.dataset.library import Entry, Library
from ui.dataset.tags import PER_PAGE, TagQuery, table_of, tag_edit


@pytest.fixture
def entries(tmp_path: Path) -> tuple[Entry, ...]:
    """Three pictures: "blue eyes" twice and misspelled once, the newest caption with a tag of its own."""
    texts = ("blue eyes, hat, old", "blue eyes, hat", "Blue_Eyes, new, hat")
    for number, text in enumerate(texts):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
        caption = tmp_path / f"{number}.txt"
        caption.write_text(text, encoding="utf-8")
        os.utime(caption, (1000 + number, 1000 + number))
    return Library(lambda: [tmp_path]).listing(tmp_path).entries


def _tags(entries: tuple[Entry, ...], **asked: object) -> list[str]:
    return [tag for tag, _, _ in table_of(entries, TagQuery.of(dict(asked)))["rows"]]


def test_rows_counts_and_near_spellings(entries: tuple[Entry, ...]) -> None:
    table = table_of(entries, TagQuery())
    assert table["rows"] == [
        ("hat", 3, None), ("blue eyes", 2, None), ("Blue_Eyes", 1, "blue eyes"), ("new", 1, None), ("old", 1, None)
    ]  # fmt: skip
    assert (table["total"], table["matching"], table["alike"], table["pages"]) == (5, 5, 1, 1)


def test_search_order_and_least(entries: tuple[Entry, ...]) -> None:
    assert _tags(entries, search="EYES") == ["blue eyes", "Blue_Eyes"]
    assert _tags(entries, sort="rare") == ["Blue_Eyes", "new", "old", "blue eyes", "hat"]
    assert _tags(entries, sort="name") == ["blue eyes", "Blue_Eyes", "hat", "new", "old"]
    assert _tags(entries, sort="newest") == ["Blue_Eyes", "new", "blue eyes", "hat", "old"]
    assert _tags(entries, least=2) == ["hat", "blue eyes"]
    assert _tags(entries, near=True) == ["Blue_Eyes"]


def test_odd_questions_become_the_first_page_of_everything() -> None:
    odd = {"search": 7, "sort": "drop table", "least": "many", "near": "yes", "page": -3}
    assert TagQuery.of(odd) == TagQuery()
    assert len(TagQuery.of({"search": "x" * 10_000}).search) == 500


def test_pages(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    tags = ", ".join(f"tag {number:03} of many" for number in range(PER_PAGE + 5))
    (tmp_path / "a.txt").write_text(tags, encoding="utf-8")
    entries = Library(lambda: [tmp_path]).listing(tmp_path).entries
    table = table_of(entries, TagQuery(page=9))
    assert (table["page"], table["pages"], len(table["rows"])) == (1, 2, 5)


def test_buttons() -> None:
    title, edit = tag_edit("rename", ["cat", "dog"], " animal ")
    assert (title, edit("a, dog, cat")) == ("rename cat, dog to animal", "a, animal")
    assert tag_edit("remove", ["cat"], "")[1]("Cat, cat") == "Cat"
    assert tag_edit("first", ["b"], "")[1]("a, b") == "b, a"
    for deed, tags in (("explode", ["a"]), ("remove", "a"), ("remove", [1]), ("remove", [])):
        with pytest.raises(UserError):
            tag_edit(deed, tags, "x")
