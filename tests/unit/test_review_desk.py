"""Looking drafts over: deciding, editing, conflicts, and writing the accepted ones as one edit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from trainer.captioners.drafts import Draft, DraftFile
from trainer.errors import UserError
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.review_desk import ReviewDesk

PAGE = {"page": 0, "show": "all"}


class Place:
    """A dataset of three pictures without captions, each with a draft."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "workspace" / "datasets" / "set"
        self.folder.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8)).save(self.folder / f"{number}.png")
        self.desk = DatasetDesk(AppContext(Workspace(root / "workspace")))
        self.reviews = ReviewDesk(self.desk)
        self.drafts = DraftFile.review(self.desk.workspace, self.folder)
        self.drafts.add(Draft(f"{number}.png", f"{number}.txt", None, "", f"new {number}") for number in range(3))
        self.view: View = self.desk.open(str(self.folder)).view

    @property
    def captions(self) -> dict[str, str]:
        return {path.name: path.read_text("utf-8") for path in self.folder.glob("*.txt")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_accepted_drafts_are_written_as_one_edit(place: Place) -> None:
    place.reviews.decide(place.view, PAGE, "0.png", "accepted", " edited\nsecond line ")
    place.reviews.decide(place.view, PAGE, "1.png", "rejected", "new 1")
    review = place.reviews.decide_many(place.view, PAGE, "accepted", ["2.png", {"odd": 1}])
    assert review.panel["counts"] == {"open": 0, "accepted": 2, "rejected": 1, "conflict": 0, "written": 0}
    shown, outcome, review = place.reviews.write(place.view)
    assert (outcome.written, shown.undo, review.panel["total"]) == (2, "Automatic captions", 1)
    assert place.captions == {"0.txt": "edited\nsecond line", "2.txt": "new 2"}
    place.desk.undo(place.view)
    assert place.captions == {}


def test_a_caption_changed_meanwhile_is_written_only_when_somebody_says_so(place: Place) -> None:
    (place.folder / "0.txt").write_text("theirs", encoding="utf-8")
    place.desk.refresh(place.view)
    review = place.reviews.decide_many(place.view, PAGE, "accepted", None)
    assert review.panel["counts"]["conflict"] == 1
    place.reviews.write(place.view)
    assert place.captions["0.txt"] == "theirs"
    place.reviews.decide(place.view, PAGE, "0.png", "accepted", "mine after all")
    place.reviews.write(place.view)
    assert place.captions["0.txt"] == "mine after all"
    assert not place.drafts.path.exists()


def test_polling_answers_only_when_something_changed(place: Place) -> None:
    review = place.reviews.poll(str(place.folder), "")
    assert review is not None
    assert place.reviews.poll(str(place.folder), review.key) is None
    place.drafts.add([Draft("1.png", "1.txt", None, "", "better")])
    assert place.reviews.poll(str(place.folder), review.key) is not None
    place.reviews.discard(place.view)
    assert not place.drafts.path.exists()


def test_a_draft_that_comes_just_after_they_were_read_shows_at_the_next_look(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = DraftFile.read

    def then_one_comes(drafts: DraftFile) -> dict[str, Draft]:
        found = read(drafts)
        monkeypatch.undo()
        drafts.add([Draft("1.png", "1.txt", None, "", "better")])
        return found

    monkeypatch.setattr(DraftFile, "read", then_one_comes)
    first = place.reviews.turn(place.view, PAGE)
    review = place.reviews.poll(str(place.folder), first.key)
    assert review is not None and "better" in json.dumps(review.panel)


@pytest.mark.parametrize(
    ("name", "decision", "text", "code"),
    [
        ("9.png", "accepted", "x", "caption.draft_gone"),
        ("../0.png", "accepted", "x", "caption.draft_gone"),
        ("0.png", "evil", "x", "caption.decision"),
        ("0.png", "accepted", None, "caption.draft_text"),
        ("0.png", "accepted", "x" * 200_000, "caption.draft_text"),
    ],
)
def test_odd_decisions_are_refused(name: str, decision: str, text: object, code: str, place: Place) -> None:
    with pytest.raises(UserError) as caught:
        place.reviews.decide(place.view, PAGE, name, decision, text)
    assert caught.value.problems[0].code == code
    with pytest.raises(UserError, match="No caption is accepted"):
        place.reviews.write(place.view)
