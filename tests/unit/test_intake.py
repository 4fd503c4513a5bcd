"""Uploads: what is wanted comes in under safe names; nothing else is written, and nothing is overwritten."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from trainer.curation import intake
from trainer.curation.intake import dataset_folder, take_in
from trainer.errors import UserError


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_pictures_captions_and_tables_come_in(tmp_path: Path) -> None:
    for name in ("a.png", "a.txt", "notes.docx"):
        (tmp_path / name).write_bytes(png())
    folder = tmp_path / "datasets" / "mine"
    result = take_in([tmp_path / name for name in ("a.png", "a.txt", "notes.docx")], folder)
    assert files(folder) == ["a.png", "a.txt"]
    assert (result.added, result.skipped) == (2, [("notes.docx", "it is neither a picture nor a caption")])


def test_a_zip_keeps_its_folders_and_cannot_lead_out(tmp_path: Path) -> None:
    members = {
        "10_cat/a.png": png(),
        "10_cat/a.txt": b"a cat",
        "metadata.jsonl": b"{}",
        "../evil.png": png(),
        "/etc/evil.png": png(),
        "x/../../evil.png": png(),
        "..\\evil.png": png(),
        "__MACOSX/._a.png": png(),
        ".hidden/a.png": png(),
        "run.sh": b"rm",
        'odd:"name".png': png(),
    }
    folder = tmp_path / "datasets" / "mine"
    result = take_in([zipped(tmp_path / "up.zip", members)], folder)
    assert files(folder) == ["10_cat/a.png", "10_cat/a.txt", "metadata.jsonl", "odd__name_.png"]
    assert files(tmp_path) == [f"datasets/mine/{name}" for name in files(folder)] + ["up.zip"]
    assert {name for name, _ in result.skipped} == {
        "../evil.png",
        "/etc/evil.png",
        "x/../../evil.png",
        "run.sh",
    }
    assert result.added == 4


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.txt").write_text("precious", encoding="utf-8")
    (tmp_path / "a.txt").write_text("other", encoding="utf-8")
    result = take_in([tmp_path / "a.txt"], folder)
    assert (folder / "a.txt").read_text(encoding="utf-8") == "precious"
    assert (result.added, len(result.skipped)) == (0, 1)


def test_zip_bombs_are_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_FILE_BYTES", 100_000)
    folder = tmp_path / "mine"
    bomb = zipped(tmp_path / "bomb.zip", {"a.png": png(), "big.png": bytes(300_000)})
    result = take_in([bomb], folder)
    assert (files(folder), result.skipped[0][0]) == (["a.png"], "big.png")
    little = intake._Budget(size=150_000)
    monkeypatch.setattr(intake, "_Budget", lambda: little)
    many = zipped(tmp_path / "many.zip", {f"{number}.png": bytes(90_000) for number in range(5)})
    with pytest.raises(UserError) as caught:
        take_in([many], folder)
    assert caught.value.problems[0].code == "dataset.too_large"


@pytest.mark.parametrize("data", [b"not a zip", b"PK\x03\x04" + bytes(50)])
def test_a_broken_zip_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(data)
    result = take_in([tmp_path / "broken.zip"], tmp_path / "mine")
    assert result.skipped[0][0] == "broken.zip"


def test_a_damaged_member_is_named_and_the_rest_comes_in(tmp_path: Path) -> None:
    path = zipped(tmp_path / "up.zip", {"a.txt": b"hello " * 500, "b.txt": b"fine"})
    data = bytearray(path.read_bytes())
    data[40:48] = bytes(8)
    path.write_bytes(bytes(data))
    result = take_in([path], tmp_path / "mine")
    assert files(tmp_path / "mine") == ["b.txt"]
    assert result.skipped[0][0] == "a.txt"


@pytest.mark.parametrize("name", ["", "  ", "..", ".hidden", "a/b", "a\\b", "c:", "x" * 81, "a\nb"])
def test_names_that_do_not_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        dataset_folder(tmp_path, name)
    assert caught.value.problems[0].code == "dataset.name"


def test_a_good_name(tmp_path: Path) -> None:
    assert dataset_folder(tmp_path, " my cats ") == tmp_path / "my cats"


def test_nothing_given(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        take_in([], tmp_path)
