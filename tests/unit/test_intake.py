"""Uploads: what is wanted comes in under safe names; nothing else is written, and nothing is overwritten."""

from __future__ import annotations

import io
import json
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from trainer.curation import intake
from trainer.curation.intake import Upload, dataset_folder, take_in
from trainer.curation.settling import Intake
from trainer.errors import UserError


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def given(tmp_path: Path, members: dict[str, bytes]) -> list[Upload]:
    """Files as a browser sends them: under names of its own, with the given ones beside."""
    (tmp_path / "sent").mkdir(exist_ok=True)
    uploads = []
    for number, (name, data) in enumerate(members.items()):
        path = tmp_path / "sent" / f"{number}{Path(name).suffix}"
        path.write_bytes(data)
        uploads.append(Upload(path, name))
    return uploads


def take(paths: Sequence[Path], folder: Path) -> Intake:
    return take_in([Upload(path, path.name) for path in paths], folder)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_pictures_captions_and_tables_come_in(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "mine"
    seen: list[int] = []
    uploads = given(tmp_path, {"a.png": png(), "a.txt": b"a cat", "notes.docx": b"x"})
    result = take_in(uploads, folder, seen.append)
    assert contents(folder) == {"a.png": png(), "a.txt": b"a cat"}
    assert (result.added, result.skipped) == (2, [("notes.docx", "it is neither a picture nor a caption")])
    assert seen == [1, 2]
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_a_zip_keeps_its_folders_and_cannot_lead_out(tmp_path: Path) -> None:
    members = {
        "10_cat/a.png": png(),
        "10_cat/a.txt": b"a cat",
        "../evil.png": png(),
        "/etc/evil.png": png(),
        "x/../../evil.png": png(),
        "..\\evil.png": png(),
        "__MACOSX/._a.png": png(),
        ".hidden/a.png": png(),
        "run.sh": b"rm",
        "inner.zip": b"PK",
        "/".join("n" * 20) + "/deep.png": png(),
        'odd:"name".png': png(),
    }
    folder = tmp_path / "datasets" / "mine"
    result = take([zipped(tmp_path / "up.zip", members)], folder)
    assert files(folder) == ["10_cat/a.png", "10_cat/a.txt", "odd__name_.png"]
    assert files(tmp_path) == [f"datasets/mine/{name}" for name in files(folder)] + ["up.zip"]
    assert {name for name, _ in result.skipped} == {
        "../evil.png",
        "/etc/evil.png",
        "x/../../evil.png",
        "..\\evil.png",
        "run.sh",
        "inner.zip",
        "/".join("n" * 20) + "/deep.png",
    }
    assert result.added == 3


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("CON.png", "_CON.png"),
        ("lpt1.tar.png", "_lpt1.tar.png"),
        ("console.png", "console.png"),
        ("dots./sub /a.png", "dots/sub/a.png"),
        ("line\nbreak\t.png", "line_break_.png"),
        ("\u202egnp.exe.png", "_gnp.exe.png"),
        ("e\u0301.png", "\u00e9.png"),
        ("\ud800.png", "_.png"),
        (" b.png", "b.png"),
        ("ä" * 300 + ".png", "ä" * 88 + ".png"),
    ],
)
def test_odd_names_become_ones_that_work_everywhere(name: str, kept: str, tmp_path: Path) -> None:
    [upload] = given(tmp_path, {"x.png": png()})
    take_in([Upload(upload.path, name)], tmp_path / "mine")
    assert files(tmp_path / "mine") == [kept]


def test_links_in_a_zip_stay_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.png", png())
    result = take([tmp_path / "up.zip"], tmp_path / "mine")
    assert (files(tmp_path / "mine"), result.skipped) == (["a.png"], [("link.png", "it is a link")])


def test_a_link_in_the_folder_is_not_written_through(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "10_cat").symlink_to(elsewhere)
    result = take([zipped(tmp_path / "up.zip", {"10_cat/a.png": png()})], folder)
    assert (files(elsewhere), result.added) == ([], 0)
    assert result.skipped == [("10_cat/a.png", "its folder is a link that leads elsewhere")]


def test_what_is_there_already_is_skipped_and_told(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    uploads = given(tmp_path, {"a.png": png(), "a.txt": b"a cat"})
    take_in(uploads, folder)
    result = take_in(uploads, folder)
    assert (result.added, result.same, result.skipped) == (0, ["a.png", "a.txt"], [])
    assert files(folder) == ["a.png", "a.txt"]


def test_a_taken_name_is_changed_together_with_its_caption(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    take_in(given(tmp_path, {"a.png": png(), "a.txt": b"precious"}), folder)
    other = {"a.png": png("blue"), "a.txt": b"blue one", "A.webp": png("green")}
    result = take_in(given(tmp_path, other), folder)
    expected = {
        "a.png": png(), "a.txt": b"precious", "a-2.png": png("blue"), "a-2.txt": b"blue one", "A-3.webp": png("green")
    }  # fmt: skip
    assert contents(folder) == expected
    assert result.renamed == [("a.png", "a-2.png"), ("A.webp", "A-3.webp")]
    again = take_in(given(tmp_path, other), folder)
    assert (again.added, contents(folder)) == (0, expected), "the same upload again changes nothing"


def test_captions_alone_come_to_their_pictures_and_replace_none(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    take_in(given(tmp_path, {"a.png": png(), "a.txt": b"precious", "b.png": png("blue")}), folder)
    result = take_in(given(tmp_path, {"a.txt": b"other", "b.txt": b"blue one", "a.caption": b"x"}), folder)
    assert contents(folder) == {"a.png": png(), "a.txt": b"precious", "b.png": png("blue"), "b.txt": b"blue one"}
    assert [name for name, _ in result.skipped] == ["a.txt", "a.caption"]
    # the same picture with another caption
    result = take_in(given(tmp_path, {"a.png": png(), "a.txt": b"other"}), folder)
    assert (result.same, [name for name, _ in result.skipped]) == (["a.png"], ["a.txt"])
    assert (folder / "a.txt").read_bytes() == b"precious"


def test_a_table_stays_where_its_names_fit_and_becomes_files_elsewhere(tmp_path: Path) -> None:
    rows = [{"file_name": "sub/a.png", "text": "first\nsecond"}, {"file_name": "b.png", "text": "two"}]
    table = "\n".join(map(json.dumps, rows)).encode()
    members = {"x/metadata.jsonl": table, "x/sub/a.png": png(), "x/b.png": png("blue"), "x/b.txt": b"own"}
    archive = zipped(tmp_path / "up.zip", members)
    take([archive], tmp_path / "new")
    assert contents(tmp_path / "new") == members
    (tmp_path / "old" / "x" / "sub").mkdir(parents=True)
    (tmp_path / "old" / "x" / "sub" / "a.png").write_bytes(png("green"))
    result = take([archive], tmp_path / "old")
    assert contents(tmp_path / "old") == {
        "x/sub/a.png": png("green"),
        "x/sub/a-2.png": png(),
        "x/sub/a-2.txt": b"first\nsecond",
        "x/b.png": png("blue"),
        "x/b.txt": b"own",
    }
    assert result.notes == ["The captions in x/metadata.jsonl were written as files beside their pictures."]


def test_zip_bombs_are_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_FILE_BYTES", 100_000)
    folder = tmp_path / "mine"
    bomb = zipped(tmp_path / "bomb.zip", {"a.png": png(), "big.png": bytes(300_000)})
    result = take([bomb], folder)
    assert (files(folder), result.skipped[0][0]) == (["a.png"], "big.png")
    many = zipped(tmp_path / "many.zip", {f"{number}.png": bytes(90_000) for number in range(5)})
    for limits, code in (
        ({"MAX_TOTAL_BYTES": 150_000}, "dataset.too_large"),
        ({"RATIO_FREE_BYTES": 0}, "dataset.bomb"),
        ({"MAX_FILES": 3}, "dataset.too_many"),
    ):
        with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
            for name, value in limits.items():
                patch.setattr(intake, name, value)
            take([many], tmp_path / "bombed")
        assert caught.value.problems[0].code == code
        assert not (tmp_path / "bombed").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_header_that_lies_about_the_size_gains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_FILE_BYTES", 100_000)
    path = zipped(tmp_path / "lies.zip", {"big.png": bytes(3_000_000)})
    data = path.read_bytes().replace((3_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    path.write_bytes(data)
    result = take([path], tmp_path / "mine")
    assert (files(tmp_path), [name for name, _ in result.skipped]) == (["lies.zip"], ["big.png"])


def test_a_full_disk_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError) as caught:
        take([zipped(tmp_path / "up.zip", {"a.png": png()})], tmp_path / "mine")
    assert caught.value.problems[0].code == "out.disk_full"


@pytest.mark.parametrize("data", [b"not a zip", b"PK\x03\x04" + bytes(50)])
def test_a_broken_zip_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(data)
    result = take([tmp_path / "broken.zip"], tmp_path / "mine")
    assert result.skipped[0][0] == "broken.zip"


def test_a_damaged_member_is_named_and_the_rest_comes_in(tmp_path: Path) -> None:
    path = zipped(tmp_path / "up.zip", {"a.txt": b"hello " * 500, "b.txt": b"fine"})
    data = bytearray(path.read_bytes())
    data[40:48] = bytes(8)
    path.write_bytes(bytes(data))
    result = take([path], tmp_path / "mine")
    assert files(tmp_path / "mine") == ["b.txt"]
    assert result.skipped[0][0] == "a.txt"


@pytest.mark.parametrize(
    "name", ["", "  ", "..", ".hidden", "a/b", "a\\b", "c:", "x" * 81, "a\nb", "dot.", "CON", "e\u0301", "ä" * 200]
)
def test_names_that_do_not_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        dataset_folder(tmp_path, name)
    assert caught.value.problems[0].code == "dataset.name"


def test_a_good_name(tmp_path: Path) -> None:
    assert dataset_folder(tmp_path, " my cats ") == tmp_path / "my cats"


def test_nothing_given(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        take([], tmp_path)
