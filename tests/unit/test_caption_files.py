"""Caption files, batch edits and their undo: nothing a user wrote is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from trainer.curation import caption_edits as edits
from trainer.curation import edit_log
from trainer.curation.edit_log import EditLog
from trainer.curation.steps import Change
from trainer.data.caption_files import decode, read_caption, read_caption_file, write_caption
from trainer.errors import UserError


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        (b"", "", "utf-8"),
        (b"\n", "", "utf-8"),
        (b"one", "one", "utf-8"),
        (b"one\ntwo\n\nfour\n", "one\ntwo\n\nfour", "utf-8"),
        (b"one\r\ntwo\r\n", "one\ntwo", "utf-8"),
        ("größe".encode(), "größe", "utf-8"),
        (b"\xef\xbb\xbfone", "one", "utf-8-sig"),
        ("größe\n".encode("utf-16"), "größe", "utf-16"),
        ("größe".encode("latin-1"), "größe", "latin-1"),
        (b"\xff\xfe\x00", "ÿþ\x00", "latin-1"),
    ],
)
def test_reads_every_encoding_and_line(data: bytes, text: str, encoding: str) -> None:
    file = decode(data)
    assert (file.text, file.encoding) == (text, encoding)


@pytest.mark.parametrize("data", [b"", b"\n", b"a", b"a\nb\n", b"a\r\nb", b"a\r\n\r\nb\r\n", "ä\n\n".encode()])
def test_an_unchanged_file_keeps_its_bytes(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    text = read_caption(path)
    assert text is not None
    write_caption(path, text)
    assert path.read_bytes() == data


@pytest.mark.parametrize("text", ["new", "new\n", "new\n\nlines\n\n", ""])
@pytest.mark.parametrize("old", [None, b"old", b"old\r\n"])
def test_what_is_written_is_read_back(old: bytes | None, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_bytes(old)
    write_caption(path, text)
    assert read_caption(path) == text


def test_windows_line_ends_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\n")
    write_caption(path, "one\ntwo")
    assert path.read_bytes() == b"one\r\ntwo\r\n"


def test_none_deletes_and_missing_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert read_caption_file(path) is None
    write_caption(path, "x")
    write_caption(path, None)
    write_caption(path, None)
    assert not path.exists()


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (edits.replace_text("cat", "dog"), "cat, catfish\ncat", "dog, dogfish\ndog"),
        (edits.replace_text("CAT", "dog", match_case=False), "Cat", "dog"),
        (edits.replace_text("a.c", "x"), "abc a.c", "abc x"),
        (edits.replace_text(r"\1", r"\2"), r"\1", r"\2"),
        (edits.replace_text(r"^(\w+) cat", r"\1 dog", regex=True), "red cat\nblue cat", "red dog\nblue dog"),
        (edits.add_tag("new"), "a, b", "a, b, new"),
        (edits.add_tag("new"), "a,  new ,b", "a,  new ,b"),
        (edits.add_tag(" new ", first=True), "a\nb", "new, a\nnew, b"),
        (edits.add_tag("new"), "", "new"),
        (edits.remove_tag("b"), "a, b, c\nb", "a, c\n"),
        (edits.remove_tag("b"), "a,bb , c", "a,bb , c"),
        (edits.put_trigger_first("ohwx"), "a, ohwx, b\n\nc", "ohwx, a, b\n\nohwx, c"),
        (edits.put_trigger_first("ohwx"), "  ", "ohwx"),
        (edits.put_trigger_first("ohwx"), "ohwx,  a", "ohwx,  a"),
        (edits.remove_duplicate_tags(), "a, b, a, c, b", "a, b, c"),
        (edits.prepend("photo of "), "a cat\n\na dog", "photo of a cat\n\nphoto of a dog"),
        (edits.append(", 4k"), "a cat", "a cat, 4k"),
        (edits.append(" 4k"), "", "4k"),
    ],
)
def test_edits(edit: edits.Edit, before: str, after: str) -> None:
    assert edit(before) == after


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: edits.replace_text("", "x"), "edit.nothing_to_find"),
        (lambda: edits.replace_text("(", "x", regex=True), "edit.regex"),
        (lambda: edits.replace_text("a", r"\1", regex=True), "edit.regex"),
        (lambda: edits.replace_text("a", r"\g<no>", regex=True), "edit.regex"),
        (lambda: edits.add_tag("  "), "edit.no_tag"),
        (lambda: edits.put_trigger_first(""), "edit.no_tag"),
    ],
)
def test_edits_that_make_no_sense(make: object, code: str) -> None:
    with pytest.raises(UserError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.problems[0].code == code


def test_preview_lists_only_what_changes() -> None:
    captions = {"a.txt": "cat", "b.txt": "dog", "c.txt": None}
    assert edits.changes_of(captions, edits.replace_text("cat", "dog")) == [Change("a.txt", "cat", "dog")]
    assert Change("c.txt", None, "x") in edits.changes_of(captions, edits.add_tag("x"))


def test_tags_are_counted_once_per_caption() -> None:
    assert edits.count_tags(["a, b, a", "b\nc", ""]) == [("b", 2), ("a", 1), ("c", 1)]


def _folder(tmp_path: Path, **captions: str) -> tuple[Path, EditLog]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, text in captions.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder, EditLog(tmp_path / "state", folder)


def _texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}


def test_undo_and_redo_across_a_reload(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="cat\nsecond line", b="cat")
    log.apply("replace", [Change("a.txt", "cat\nsecond line", "dog\nsecond line"), Change("b.txt", "cat", "dog")])
    log.apply("new", [Change("c.txt", None, "bird")])
    assert _texts(folder) == {"a": "dog\nsecond line", "b": "dog", "c": "bird"}

    log = EditLog(tmp_path / "state", folder)
    assert log.titles() == ("new", "")
    assert log.undo().written == 1
    assert log.undo().written == 2
    assert _texts(folder) == {"a": "cat\nsecond line", "b": "cat"}
    assert log.undo().title == ""
    assert log.titles() == ("", "replace")
    assert log.redo().title == "replace"
    assert log.redo().title == "new"
    assert log.redo().title == ""
    assert _texts(folder) == {"a": "dog\nsecond line", "b": "dog", "c": "bird"}


def test_a_new_edit_forgets_what_was_undone(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1")
    log.apply("first", [Change("a.txt", "1", "2")])
    log.undo()
    log.apply("second", [Change("a.txt", "1", "3")])
    assert log.titles() == ("second", "")
    assert log.undo().written == 1
    assert _texts(folder) == {"a": "1"}


def test_captions_changed_elsewhere_are_left_alone_and_named(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1", b="1")
    (folder / "a.txt").write_text("mine", encoding="utf-8")
    outcome = log.apply("edit", [Change("a.txt", "1", "2"), Change("b.txt", "1", "2")])
    assert (outcome.written, outcome.conflicts) == (1, ("a.txt",))
    (folder / "b.txt").write_text("mine too", encoding="utf-8")
    outcome = log.undo()
    assert (outcome.written, outcome.conflicts) == (0, ("b.txt",))
    assert _texts(folder) == {"a": "mine", "b": "mine too"}


def test_an_edit_killed_half_way_can_be_undone_or_finished(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1", b="1")
    log.apply("edit", [Change("a.txt", "1", "2"), Change("b.txt", "1", "2")])
    (folder / "b.txt").write_text("1", encoding="utf-8")  # as if killed before the second caption
    assert log.undo().written == 1
    assert _texts(folder) == {"a": "1", "b": "1"}
    assert log.redo().written == 2


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1")
    log.apply("edit", [Change("a.txt", "1", "ü")])
    edit = next((tmp_path / "state").glob("*.jsonl"))
    edit.write_bytes(edit.read_bytes() + json.dumps(["b.txt", None, "ü"], ensure_ascii=False).encode()[:-3])
    assert log.undo().written == 1
    assert _texts(folder) == {"a": "1"}


def test_a_job_can_grow_an_edit_and_be_undone_as_one(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="keep")
    with log.growing("captions by a model") as write:
        assert log.titles() == ("", "")
        assert write(Change("b.txt", None, "one"))
        assert write(Change("c.txt", None, "two\u2028lines"))
        assert not write(Change("a.txt", None, "never"))
    assert log.titles() == ("captions by a model", "")
    assert log.undo().written == 2
    assert _texts(folder) == {"a": "keep"}


def test_old_edits_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_log, "KEPT_EDITS", 5)
    _, log = _folder(tmp_path, a="0")
    for number in range(8):
        log.apply(f"edit {number}", [Change("a.txt", str(number), str(number + 1))])
    assert len(list((tmp_path / "state").glob("*.jsonl"))) == 6
    assert [log.undo().title for _ in range(7)] == [f"edit {number}" for number in (7, 6, 5, 4, 3, 2)] + [""]


def test_a_thousand_captions_are_replaced_and_undone_with_little_work(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, **{f"{number:04}": f"a cat, number {number}" for number in range(1000)})
    started = time.process_time()
    captions = {f"{number:04}.txt": read_caption(folder / f"{number:04}.txt") for number in range(1000)}
    changes = edits.changes_of(captions, edits.replace_text(r"number (\d+)", r"no. \1", regex=True))
    log.apply("replace", changes)
    seconds = time.process_time() - started
    assert (folder / "0999.txt").read_text(encoding="utf-8") == "a cat, no. 999"
    assert log.undo().written == 1000
    assert seconds < 4  # of CPU, whatever else the machine does; about 0.3 were measured
