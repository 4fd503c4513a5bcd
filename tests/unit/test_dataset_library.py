"""Listing a folder: its captions and masks, links, and what changed since the last look."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from dataset_samples import write_picture

from trainer.curation.caption_edits import replace_text
from trainer.errors import UserError
from ui.dataset import library as library_module
from ui.dataset.library import Library, Listing
from ui.dataset.view import changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for name, caption in {"a.png": "one", "b.png": "two", "c.png": None, "sub/d.png": "four"}.items():
        write_picture(folder / name, caption=caption)
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(lambda: [tmp_path])


def texts(listing: Listing) -> dict[str, str]:
    return {entry.name: entry.own.text for entry in listing.entries}


def test_a_folder_that_did_not_change_has_the_same_listing(folder: Path, library: Library) -> None:
    first = library.listing(folder)
    assert texts(first) == {"a.png": "one", "b.png": "two", "c.png": "", "sub/d.png": "four"}
    assert library.listing(folder) is first
    assert library.recent(folder) is first


def test_captions_are_read_again_when_their_files_change(folder: Path, library: Library) -> None:
    first = library.listing(folder)
    (folder / "a.txt").write_text("another text", encoding="utf-8")
    (folder / "c.txt").write_text("now there", encoding="utf-8")
    (folder / "b.txt").unlink()
    again = library.listing(folder)
    assert texts(again) == {"a.png": "another text", "b.png": "", "c.png": "now there", "sub/d.png": "four"}
    assert again.named("sub/d.png") is first.named("sub/d.png"), "what did not change is not read again"


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "captioned", "masked"])
def test_files_that_come_and_go_show_at_once(change: str, folder: Path, library: Library) -> None:
    library.listing(folder)
    if change == "added":
        write_picture(folder / "sub/e.png")
    elif change == "removed":
        (folder / "a.png").unlink()
    elif change == "renamed":
        (folder / "sub").rename(folder / "other")
    elif change == "captioned":
        (folder / "c.txt").write_text("new", encoding="utf-8")
    else:
        write_picture(folder / ".atelier/masks/sub/d.png")
    now = library.recent(folder)
    assert (("sub/e.png" in now.by_name), ("a.png" in now.by_name), ("other/d.png" in now.by_name)) == (
        change == "added",
        change != "removed",
        change == "renamed",
    )
    assert texts(now)["c.png"] == ("new" if change == "captioned" else "")
    assert [entry.name for entry in now.entries if entry.has_mask] == (["sub/d.png"] if change == "masked" else [])


def test_a_caption_written_in_place_shows_where_it_is_looked_at(folder: Path, library: Library) -> None:
    """Folders do not tell of it."""
    first = library.listing(folder)
    with (folder / "a.txt").open("r+") as file:
        file.write("ONE!")
    assert library.recent(folder) is first
    again = library.again(folder, ["b.png"])
    assert again is first
    again = library.again(folder, ["a.png"])
    assert texts(again)["a.png"] == "ONE!"
    assert again.named("b.png") is first.named("b.png")
    assert library.recent(folder) is again


def test_old_listings_are_renewed_in_the_background(
    folder: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.listing(folder)
    with (folder / "a.txt").open("r+") as file:
        file.write("ONE!")
    monkeypatch.setattr(library_module, "_RECENT_SECONDS", 0.0)
    deadline = time.monotonic() + 30
    while texts(library.recent(folder))["a.png"] != "ONE!":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_picture_that_is_gone_when_looked_at_again(folder: Path, library: Library) -> None:
    library.listing(folder)
    (folder / "a.png").unlink()
    assert "a.png" not in library.again(folder, ["a.png"]).by_name
    with pytest.raises(UserError, match="not in the folder any more"):
        library.recent(folder).named("a.png")


def test_captions_of_a_table_are_shown_and_edited_into_files(tmp_path: Path, library: Library) -> None:
    write_picture(tmp_path / "t/a.png")
    table = tmp_path / "t" / "metadata.jsonl"
    table.write_text('{"file_name": "a.png", "text": "from the table"}\n')
    (entry,) = library.listing(tmp_path / "t").entries
    assert (entry.own.text, entry.own.stored) == ("from the table", None)
    (change,) = changes([entry], replace_text("table", "file"))
    assert (change.name, change.before, change.after) == ("a.txt", None, "from the file")
    table.write_text('{"file_name": "a.png", "text": "changed in the table"}\n')
    (entry,) = library.listing(tmp_path / "t").entries
    assert entry.own.text == "changed in the table"


def test_pictures_that_share_a_caption_file(tmp_path: Path, library: Library) -> None:
    write_picture(tmp_path / "t/a.png", caption="one")
    write_picture(tmp_path / "t/a.jpg")
    listing = library.listing(tmp_path / "t")
    assert len(changes(listing.entries, replace_text("one", "two"))) == 1
    (tmp_path / "t/a.txt").write_text("two", encoding="utf-8")
    assert texts(library.again(tmp_path / "t", ["a.png"])) == {"a.jpg": "two", "a.png": "two"}


def test_links(tmp_path: Path) -> None:
    """Those that lead out of reach are not there, whether they are a picture, a caption, a table or a folder."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    write_picture(outside / "secret.png", caption="a secret")
    (outside / "metadata.jsonl").write_text('{"file_name": "d.png", "text": "a secret"}\n')
    for name in ("a.png", "b.png", "c.png", "d.png"):
        write_picture(inside / name)
    (inside / "link.png").symlink_to(outside / "secret.png")
    (inside / "b.txt").symlink_to(outside / "secret.txt")
    (inside / "metadata.jsonl").symlink_to(outside / "metadata.jsonl")
    (inside / "folder").symlink_to(outside)
    (inside / "circle.png").symlink_to(inside / "circle.png")
    (inside / "within.png").symlink_to(inside / "a.png")
    library = Library(lambda: [inside])
    assert texts(library.listing(inside)) == {"a.png": "", "c.png": "", "d.png": "", "within.png": ""}

    (inside / "c.txt").symlink_to(outside / "secret.txt")
    assert "c.png" not in library.again(inside, ["c.png"]).by_name
    (inside / "a.png").unlink()
    (inside / "a.png").symlink_to(outside / "secret.png")
    assert "a.png" not in library.recent(inside).by_name


def test_order_hidden_files_and_odd_names(tmp_path: Path, library: Library) -> None:
    names = ["A.PNG", "a b.png", "ä.webp", "sub/._x.png", "sub/x.png", "sub-2/y.png", ".hidden/z.png", "__MACOSX/m.png"]
    for name in names:
        path = tmp_path / "t" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked at here")
    (tmp_path / "t" / "notes.txt").write_text("no picture's")
    if os.name == "posix":
        (tmp_path / "t" / os.fsdecode(b"latin\xe9.png")).write_bytes(b"x")
    found = [entry.name for entry in library.listing(tmp_path / "t").entries]
    expected = ["A.PNG", "a b.png", *([os.fsdecode(b"latin\xe9.png")] if os.name == "posix" else [])]
    assert sorted(found) == sorted([*expected, "sub/x.png", "sub-2/y.png", "ä.webp"])
    assert found.index("sub/x.png") < found.index("sub-2/y.png"), "sub before sub-2, as a file manager has it"


@pytest.mark.parametrize(("name", "code"), [("nowhere", "dataset.missing_folder"), ("empty", "dataset.no_pictures")])
def test_nothing_to_list(name: str, code: str, tmp_path: Path, library: Library) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        library.listing(tmp_path / name)
    assert caught.value.problems[0].code == code
