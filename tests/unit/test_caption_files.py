"""Caption files: whatever they are stored as, nothing a user wrote is lost."""

from __future__ import annotations

import codecs
from functools import partial
from pathlib import Path

import pytest

from tests.unit.dataset_samples import as_nobody, folder_for_everyone
from trainer.data.caption_files import decode, read_caption, read_caption_file, side_by_side, write_caption


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
        (b"one\rtwo\r", "one\ntwo", "utf-8"),
        (b"one\r\ntwo\nthree\r", "one\ntwo\nthree", "utf-8"),
        (codecs.BOM_UTF16_BE + "größe\r\n".encode("utf-16-be"), "größe", "utf-16"),
        ("größe, cat".encode("utf-16-le"), "größe, cat", "utf-16-le"),
        ("größe, cat\n".encode("utf-16-be"), "größe, cat", "utf-16-be"),
        ("größe".encode("latin-1"), "größe", "cp1252"),
        ("“quoted” – 5 €".encode("cp1252"), "“quoted” – 5 €", "cp1252"),
        ("‚katze‘ und ‚hund‘, élan".encode("cp1252"), "‚katze‘ und ‚hund‘, élan", "cp1252"),
        ("女の子, ねこ".encode("shift_jis"), "女の子, ねこ", "shift_jis"),
        ("少女, 1girl".encode("shift_jis"), "少女, 1girl", "shift_jis"),
        (b"\xff\xfe\x00", "ÿþ\x00", "cp1252"),
        (b"caf\xe9 \x81", "café \x81", "latin-1"),
    ],
)
def test_reads_every_encoding_and_line(data: bytes, text: str, encoding: str) -> None:
    file = decode(data)
    assert (file.text, file.encoding) == (text, encoding)


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"a", b"a\nb\n", b"a\r\nb", b"a\r\n\r\nb\r\n", b"a\rb", b"a\r\rb\r", "ä\n\n".encode()]
)
def test_an_unchanged_file_keeps_its_bytes(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    text = read_caption(path)
    assert text is not None
    write_caption(path, text)
    assert path.read_bytes() == data


@pytest.mark.parametrize("text", ["new", "new\n", "new\n\nlines\n\n", ""])
@pytest.mark.parametrize("old", [None, b"old", b"old\r\n", b"old\rer", b"\xef\xbb\xbfold"])
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


def test_old_line_ends_of_the_mac_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\rtwo")
    write_caption(path, "one\nthree")
    assert path.read_bytes() == b"one\rthree"


def test_a_file_marked_read_only_is_neither_replaced_nor_deleted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("mine", encoding="utf-8")
    path.chmod(0o444)
    for text in ("other", None):
        with pytest.raises(PermissionError):
            write_caption(path, text)
    assert path.read_text(encoding="utf-8") == "mine"
    assert [other.name for other in tmp_path.iterdir()] == ["a.txt"]


def test_what_fails_does_not_keep_the_others_from_being_written() -> None:
    with folder_for_everyone() as folder:
        closed = folder / "closed"
        closed.mkdir(0o555)
        paths = [folder / "a.txt", closed / "b.txt", folder / "c.txt"]
        with as_nobody():
            failed = side_by_side({path: partial(write_caption, path, "new") for path in paths})
        assert [path.name for path in failed] == ["b.txt"]
        assert failed[paths[1]].strerror == "Permission denied"
        assert [path.exists() for path in paths] == [True, False, True]
        assert not list(closed.iterdir())
