"""What the Dataset tab shows and does, without a browser: listing, filter, pages, desk, the job panel."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.curation.caption_edits import put_trigger_first, replace_text
from trainer.curation.intake import Upload
from trainer.errors import UserError
from trainer.jobs import jobs
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.dataset import caption_orders, check
from ui.dataset.caption_orders import CaptionRequest
from ui.dataset.desk import DatasetDesk
from ui.dataset.filters import PER_PAGE, Facts, Query, matching
from ui.dataset.html import last_change_html
from ui.dataset.library import Library
from ui.dataset.sizes import PictureSizes
from ui.dataset.source import upload
from ui.dataset.thumbnails import Thumbnails
from ui.dataset.view import Pages, as_ticked, datasets, picked, scoped, ticked
from ui.job_progress import Progress


def add(folder: Path, name: str, caption: str | None = None) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 20)).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def roots() -> list[Path]:
    return [Path("/")]


def library() -> Library:
    return Library(roots)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace" / "datasets" / "mine"
    add(folder, "a.png", "a red cat, sitting")
    add(folder, "b.png", "a blue cat\na blue animal, sitting")
    add(folder, "c.png")
    add(folder, "sub/d.png", " \n")
    return folder


@pytest.fixture
def desk(tmp_path: Path) -> DatasetDesk:
    context = AppContext(Workspace((tmp_path / "workspace").resolve()))
    desk = DatasetDesk(context)
    desk.tells("caption", caption_orders.report)
    desk.tells("dataset", check.report)
    return desk


FINDINGS: list[dict[str, Any]] = [
    {"code": "x", "severity": "error", "paths": ("a.png", "sub/d.png"), "message": "<b>Bad</b>", "hint": "Look."},
    {"code": "y", "severity": "info", "paths": (), "message": "General", "hint": ""},
]


def test_a_page_of_cards(tmp_path: Path) -> None:
    for number in range(PER_PAGE + 2):
        add(tmp_path / "many", f"{number:03}.png", f"tag, number {number}")
    (tmp_path / "many" / "049.png").write_bytes(b"broken")
    sizes = PictureSizes(tmp_path / "cache", roots)
    pages = Pages(Thumbnails(tmp_path / "cache", roots), sizes)
    listing = library().listing(tmp_path / "many")
    shown = pages.page(listing, Query(page=1), Facts(), {})
    assert (shown["page"], shown["pages"], shown["first"], shown["matching"]) == (1, 2, PER_PAGE, PER_PAGE + 2)
    assert [card["name"] for card in shown["cards"]] == ["048.png", "049.png"]
    assert [(card["width"], card["height"]) for card in shown["cards"]] == [(30, 20), (0, 0)]
    assert shown["cards"][0]["thumb"].startswith("/atelier/thumb/")
    assert str(tmp_path) not in shown["cards"][0]["thumb"]
    assert shown["tags"][0] == ("tag", PER_PAGE + 2)
    assert pages.page(listing, Query(page=99), Facts(), {})["page"] == 1
    assert len(pages.page(listing, Query(per_page=24), Facts(), {})["cards"]) == 24
    again = pages.page(listing, Query(), Facts(), {"offered": shown["offered"]})
    assert "tags" not in again, "what the browser has is not sent again"
    assert "tags" in pages.page(listing, Query(), Facts(sizes=sizes.of(listing.folder, listing.entries)), again)


def test_ticked_pictures_that_are_hidden_or_gone(folder: Path, tmp_path: Path) -> None:
    pages = Pages(Thumbnails(tmp_path / "cache", roots), PictureSizes(tmp_path / "cache", roots))
    before = {"ticked": json.dumps(["a.png", "c.png", "sub/d.png", "deleted.png", 7])}
    shown = pages.page(library().listing(folder), Query(text="cat"), Facts(), before)
    assert (shown["hidden"], shown["gone"]) == (2, ["deleted.png"])


def test_names_of_ticked_pictures() -> None:
    odd = ["a.png", 'quote".png', "new\nline.png", "not-utf8-\udcff.png", "猫.png"]
    assert ticked({"ticked": as_ticked(odd)}) == odd
    for wrong in (
        {},
        {"ticked": None},
        {"ticked": "["},
        {"ticked": "7"},
        {"ticked": "[" * 100_000},
        {"ticked": ["a.png"]},
        {"ticked": {"a": 1}},
    ):
        assert ticked(wrong) == []


@pytest.mark.parametrize(
    ("how", "start", "end", "names"),
    [
        ("all", 0, 0, ["c.png", "a.png", "b.png"]),
        ("invert", 0, 0, ["c.png", "b.png"]),
        ("range", 1, 1, ["c.png", "a.png", "b.png"]),
        ("range", 0, -5, ["c.png", "a.png"]),
        ("range", "x", 99, ["c.png", "a.png", "b.png"]),
    ],
)
def test_ticking_over_all_pages(how: str, start: Any, end: Any, names: list[str], folder: Path) -> None:
    """``c.png`` is ticked too, and does not match."""
    found = matching(library().listing(folder), Query(text="cat"), Facts())
    assert picked(found, ["c.png", "a.png"], how, start, end) == names


def test_scopes(folder: Path) -> None:
    listing = library().listing(folder)

    def names(scope: str, *ticked: str) -> list[str]:
        return [entry.name for entry in scoped(listing, scope, Query(text="cat"), Facts(FINDINGS), ticked)]

    assert names("all") == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert names("shown") == ["a.png", "b.png"]
    assert names("selected", "b.png", "../../etc/passwd") == ["b.png"]
    with pytest.raises(UserError):
        names("selected")


def test_datasets_of_the_workspace(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "workspace" / "datasets" / "empty").mkdir()
    assert datasets(tmp_path / "workspace" / "datasets") == [folder, folder / "sub"]
    assert datasets(tmp_path / "nowhere") == []


def test_opening_is_remembered(desk: DatasetDesk, folder: Path) -> None:
    assert desk.remembered() is None
    shown = desk.open(f" {folder} ")
    assert (shown.view["total"], shown.view["captioned"]) == (4, 2)
    again = desk.remembered()
    assert again is not None
    assert again.view["folder"] == str(folder)
    assert desk.choices() == [("mine", str(folder)), ("mine/sub", str(folder / "sub"))]


def test_only_allowed_folders(desk: DatasetDesk, folder: Path, tmp_path: Path) -> None:
    outside = add(tmp_path / "outside", "a.png", "secret").parent
    (folder / "way-out").symlink_to(outside)
    for path in (outside, folder / "way-out", folder / ".." / ".." / ".." / "outside"):
        with pytest.raises(UserError) as caught:
            desk.open(str(path))
        assert caught.value.problems[0].code == "path.not_allowed"
    with pytest.raises(UserError):
        desk.turn({"folder": str(outside)}, {})
    with pytest.raises(UserError):
        desk.save({"folder": str(folder)}, "../../../outside/a.png", "secret", "changed")
    assert (outside / "a.txt").read_text(encoding="utf-8") == "secret"


def test_links_that_lead_out_are_not_shown(desk: DatasetDesk, folder: Path, tmp_path: Path) -> None:
    secret = add(tmp_path / "outside", "secret.png", "a secret")
    (folder / "link.png").symlink_to(secret)
    (folder / "c.txt").symlink_to(secret.with_suffix(".txt"))
    (folder / "within.png").symlink_to(folder / "a.png")
    (folder / "subfolder").symlink_to(secret.parent)
    names = [card["name"] for card in desk.open(str(folder)).view["cards"]]
    assert names == ["a.png", "b.png", "sub/d.png", "within.png"]


@pytest.mark.parametrize("sent", [{}, None, {"folder": 5}, {"folder": ""}])
def test_nothing_open(sent: Any, desk: DatasetDesk) -> None:
    with pytest.raises(UserError):
        desk.refresh(sent)


def test_saving_and_clashing(desk: DatasetDesk, folder: Path) -> None:
    page = desk.open(str(folder)).view
    saved = desk.save(page, "c.png", None, "new\nlines")
    assert saved.view["saved"] == "c.png"
    assert (folder / "c.txt").read_text(encoding="utf-8") == "new\nlines"
    clash = desk.save(page, "c.png", None, "from another window")
    assert clash.view["clash"] == {"name": "c.png", "theirs": "new\nlines", "mine": "from another window"}
    assert (folder / "c.txt").read_text(encoding="utf-8") == "new\nlines"
    with pytest.raises(UserError, match="not in the folder"):
        desk.save(page, "gone.png", None, "x")


def test_edits_and_their_undo(desk: DatasetDesk, folder: Path) -> None:
    page = desk.open(str(folder)).view
    title, edit = "trigger word ohwx", put_trigger_first(" ohwx ")
    shown, outcome = desk.edit({**page, "ticked": as_ticked(["a.png", "c.png"])}, "selected", title, edit)
    assert (outcome.written, shown.undo) == (2, "trigger word ohwx")
    assert (folder / "a.txt").read_text(encoding="utf-8") == "ohwx, a red cat, sitting"
    assert (folder / "c.txt").read_text(encoding="utf-8") == "ohwx"
    shown, outcome = desk.undo(page)
    assert (outcome.written, shown.undo, shown.redo) == (2, "", "trigger word ohwx")
    assert not (folder / "c.txt").exists()
    shown, outcome = desk.redo(page)
    assert (folder / "c.txt").exists()
    shown, outcome = desk.edit(page, "all", "none", replace_text("nowhere to be found", "x"))
    assert (outcome.written, shown.undo) == (0, "trigger word ohwx")


def test_uploading_opens_the_dataset(desk: DatasetDesk, tmp_path: Path) -> None:
    source = add(tmp_path / "upload", "new.png", "a text")
    given = [Upload(path, path.name) for path in (source, source.with_suffix(".txt"))]
    shown, intake = upload(desk, given, desk.workspace.datasets_dir / "fresh")
    assert (intake.added, intake.skipped, shown.view["captioned"]) == (2, [], 1)
    assert not source.exists(), "the copy that the browser sent is not kept twice"


def wait(check: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := check()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_a_job_from_start_to_findings(desk: DatasetDesk, folder: Path) -> None:
    page = desk.open(str(folder)).view
    assert desk.job_panel(str(folder), "") is None
    check.order(desk, page, 64, 1)
    with pytest.raises(UserError, match="A job is working"):
        caption_orders.start(desk, page, CaptionRequest("filename"))
    panel = wait(lambda: _ended(desk.job_panel(str(folder), "")))
    assert panel["state"] == "finished"
    assert desk.job_panel(str(folder), panel["key"]) is None
    assert desk.job_panel(str(folder / "sub"), panel["key"]) == {"key": "", "folder": str(folder / "sub")}
    shown = desk.refresh(page)
    assert {finding["code"] for finding in shown.findings} >= {"caption.missing", "caption.empty", "picture.tiny"}
    found = desk.turn(page, {"query": {"show": "finding:0"}, "page": 0})
    assert found.view["matching"] == len(shown.findings[0]["paths"])


def test_a_caption_job_with_texts_that_look_like_options(desk: DatasetDesk, folder: Path) -> None:
    page = desk.open(str(folder)).view
    caption_orders.start(desk, page, CaptionRequest("fixed", {"prompt": "--overwrite"}, {"trigger": "-x"}))
    panel = wait(lambda: _ended(desk.job_panel(str(folder), "")))
    assert panel["lines"] == ["2 captions written. 2 pictures left as they were."]
    assert (folder / "c.txt").read_text(encoding="utf-8") == "-x, --overwrite"
    assert desk.refresh(page).undo == "Automatic captions"


def test_a_captioners_model_must_lie_in_an_allowed_folder(desk: DatasetDesk, folder: Path, tmp_path: Path) -> None:
    page = desk.open(str(folder)).view
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UserError) as caught:
        caption_orders.start(desk, page, CaptionRequest("blip", {"model": str(tmp_path / "elsewhere")}))
    assert caught.value.problems[0].code == "path.not_allowed"
    assert jobs(Workspace(tmp_path / "workspace")) == []


def _ended(panel: dict[str, Any] | None) -> dict[str, Any] | None:
    return panel if panel and panel.get("state") not in (None, "running") else None


def test_time_left() -> None:
    progress = Progress()
    for done in range(5):
        progress.add({"type": "progress", "what": "looking", "done": done, "total": 20, "time": 100.0 + 2 * done})
    assert progress.seconds_left == pytest.approx(32)
    progress.add({"type": "progress", "what": "next", "done": 0, "total": 5, "time": 120.0})
    assert progress.seconds_left is None
    busy = "Another job is using cuda:0 (training of cats, since 14:05)."
    progress.add({"type": "warning", "code": "device.busy", "message": busy, "time": 130.0})
    assert progress.what == "waits: another job is using cuda:0 (training of cats, since 14:05)"
    assert (progress.total, progress.seconds_left, progress.warnings) == (0, None, [])


def test_html_is_escaped() -> None:
    assert last_change_html("<i>", "") == "Last change: &lt;i&gt;"
    assert last_change_html("", "x" * 99) == f"Taken back: {'x' * 60}..."
