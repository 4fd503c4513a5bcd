"""Drafts of captions: the last word counts, half a line does not, and what changed meanwhile is a conflict."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainer.captioners.drafts import Draft, DraftFile
from trainer.errors import UserError
from trainer.runs.store import Workspace


def a_draft(number: int = 0, text: str = "new", before: str | None = None, run: str = "") -> Draft:
    return Draft(f"{number}.png", f"{number}.txt", before, before or "", text, run)


@pytest.fixture
def drafts(tmp_path: Path) -> DraftFile:
    (tmp_path / "pictures").mkdir()
    return DraftFile.review(Workspace(tmp_path / "workspace"), tmp_path / "pictures")


def test_the_last_line_of_a_picture_counts(drafts: DraftFile) -> None:
    assert (drafts.read(), drafts.version) == ({}, "")
    drafts.add([a_draft(0, "größe\nsecond"), a_draft(1)])
    before = drafts.version
    drafts.add([a_draft(1, "better").decided("accepted")])
    assert list(drafts.read().values()) == [a_draft(0, "größe\nsecond"), a_draft(1, "better").decided("accepted")]
    assert drafts.version != before


def test_half_a_line_does_not_count_and_spoils_nothing(drafts: DraftFile) -> None:
    drafts.add([a_draft(0), a_draft(1)])
    drafts.path.write_bytes(drafts.path.read_bytes()[:-10])
    assert set(drafts.read()) == {"0.png"}
    drafts.add([a_draft(2)])
    assert set(drafts.read()) == {"0.png", "2.png"}


def test_dropping_the_last_draft_removes_the_file(drafts: DraftFile) -> None:
    drafts.add([a_draft(0), a_draft(1)])
    drafts.drop(["0.png"])
    assert set(drafts.read()) == {"1.png"}
    drafts.drop(["1.png", "nobody.png"])
    assert not drafts.path.exists()


def test_runs_are_counted_by_their_ends(drafts: DraftFile) -> None:
    first = drafts.run("job")
    drafts.add([a_draft(run=first)])
    assert drafts.run("job") == first
    drafts.finish("job")
    assert drafts.run("job") != first
    assert drafts.run("other") == "other.0"


@pytest.mark.parametrize(
    ("before", "held", "expected"),
    [
        (None, None, "open"),
        ("old", "old", "open"),
        ("old\r\nb", "old\nb", "open"),
        ("", "", "open"),
        ("", None, "conflict"),
        (None, "theirs", "conflict"),
        ("old", "theirs", "conflict"),
        ("old", "new", "written"),
    ],
)
def test_states(before: str | None, held: str | None, expected: str, drafts: DraftFile) -> None:
    if held is not None:
        (drafts.folder / "0.txt").write_text(held, encoding="utf-8")
    assert a_draft(0, "new", before).state_in(drafts.folder) == expected


def test_a_job_and_the_page_add_side_by_side(drafts: DraftFile) -> None:
    def add(start: int) -> None:
        for number in range(start, start + 20):
            drafts.add([a_draft(number)])

    threads = [threading.Thread(target=add, args=(start,)) for start in (0, 100)]
    for thread in threads:
        thread.start()
    drafts.drop(["0.png"])
    for thread in threads:
        thread.join()
    assert len(drafts.read()) in (39, 40)


@pytest.mark.parametrize("content", ["", "not JSON\n", '{"name": "x", "other": 1}\n', "[1]\n"])
def test_other_files_hold_no_drafts(content: str, drafts: DraftFile, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text(content, encoding="utf-8")
    for path in (tmp_path / "other.jsonl", tmp_path, tmp_path / "none"):
        with pytest.raises(UserError) as caught:
            DraftFile.open(path, drafts.folder)
        assert caught.value.problems[0].code == "caption.no_drafts"


def test_a_line_with_brackets_without_end_hides_no_other(tmp_path: Path) -> None:
    drafts = DraftFile(tmp_path / "drafts.jsonl", tmp_path)
    drafts.add([Draft("a.png", "a.txt", None, "", "cat")])
    with drafts.path.open("a") as file:
        file.write("[" * 100_000 + "\n")
    assert list(drafts.read()) == ["a.png"]
