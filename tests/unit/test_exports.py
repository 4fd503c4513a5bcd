"""Exports: read again, by our own trainer and by the datasets library, they are what they were made from."""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.dataset_samples import Recorded, cut_off, write_picture
from trainer.__main__ import main
from trainer.config import DatasetSettings, Source
from trainer.curation.exports import FORMATS, Export, ExportOptions, Format, export
from trainer.curation.intake import Upload, take_in
from trainer.data.folders import collect
from trainer.errors import UserError

CAPTION = 'first line\n\nthird: größe, \u2028 "quoted" <b>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every kind of caption there is, kohya's folders, names that differ in the ending only, and a broken picture."""
    root = tmp_path / "mine"
    write_picture(root / "plain.png", seed=1, caption=CAPTION)
    write_picture(root / "none.png", seed=2)
    write_picture(root / "empty.png", seed=3, caption="")
    write_picture(root / "10_red cat" / "deep" / "a.png", seed=4)
    write_picture(root / "10_red cat" / "plain.png", seed=5)
    (root / "10_red cat" / "plain.txt").write_bytes(codecs.BOM_UTF16_LE + "größe\r\nzwei".encode("utf-16-le"))
    write_picture(root / "twin.png", seed=6)
    write_picture(root / "twin.bmp", seed=7)
    write_picture(root / "latin.png", seed=8).with_suffix(".caption").write_bytes("größe".encode("latin-1"))
    Image.new("RGBA", (8, 8), (1, 2, 3, 40)).save(root / "alpha.png")
    rows = [{"file_name": "twin.png", "text": "tabled\ntwice"}, {"file_name": "twin.bmp", "text": "NA"}]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    cut_off(write_picture(root / "broken.png", seed=9))
    return root


def read(folder: Path, masks: Path | None = None) -> dict[str, tuple[Any, ...]]:
    """What the trainer sees, by the pictures' content."""
    source = Source(path=str(folder), mask_path=str(masks) if masks else None)
    found = collect(DatasetSettings(sources=[source]))
    return {
        hashlib.sha256(picture.path.read_bytes()).hexdigest(): (
            picture.caption,
            picture.has_caption,
            picture.repeats,
            picture.mask and picture.mask.read_bytes(),
        )
        for picture in found.pictures
    }


def exported(folder: Path, out: Path, to: Format, *, zipped: bool = False, **options: Any) -> Export:
    return export(folder, out, ExportOptions(to, **options), zipped=zipped, events=Recorded())


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_read_again_is_what_was_there(to: Format, zipped: bool, folder: Path, tmp_path: Path) -> None:
    before = read(folder)
    done = exported(folder, tmp_path / "out", to, zipped=zipped)
    there = tmp_path / "out"
    if zipped:
        there = tmp_path / "unpacked"
        take_in([Upload((tmp_path / "out").rename(tmp_path / "out.zip"), "out.zip")], there)
    after = read(there / done.pictures_dir)
    if to == "kohya":  # there, a folder's name is the caption of pictures without one
        before = {key: value if value[1] else ("mine", True, *value[2:]) for key, value in before.items()}
    assert after == before
    assert done.pictures == 9
    assert [skipped.path.name for skipped in done.skipped] == ["broken.png"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_kohyas_folders_are_flat_and_named_by_the_form(folder: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "prior" / "p.png", seed=20)
    done = exported(
        folder,
        tmp_path / "out",
        "kohya",
        repeats=5,
        concept="ohwx",
        class_word="cat",
        regularization=tmp_path / "prior",
    )
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert names == {
        "img/5_ohwx cat/a.png", "img/5_ohwx cat/alpha.png", "img/5_ohwx cat/empty.png", "img/5_ohwx cat/empty.txt",
        "img/5_ohwx cat/latin.png", "img/5_ohwx cat/latin.txt", "img/5_ohwx cat/none.png", "img/5_ohwx cat/plain.png",
        "img/5_ohwx cat/plain.txt", "img/5_ohwx cat/plain-2.png", "img/5_ohwx cat/plain-2.txt",
        "img/5_ohwx cat/twin.bmp", "img/5_ohwx cat/twin.txt", "img/5_ohwx cat/twin-2.png", "img/5_ohwx cat/twin-2.txt",
        "reg/1_cat/p.png",
    }  # fmt: skip
    assert done.regularization == 1
    told = " ".join(done.notes)
    for words in (
        "2 pictures got a number",
        "2 pictures without a caption",
        "captions of several lines",
        "enable_wildcard",
    ):
        assert words in told
    captions = {path.stem: path.read_bytes() for path in (tmp_path / "out").rglob("*.txt")}
    assert captions["plain"] == "größe\r\nzwei".encode()
    assert captions["plain-2"].decode() == CAPTION
    assert captions["latin"].decode() == "größe"


@pytest.mark.parametrize("to", FORMATS)
def test_masks_go_along(to: Format, folder: Path, tmp_path: Path) -> None:
    for name in ("plain", "10_red cat/plain", "twin", "10_red cat/deep/a"):
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 64), len(name)).save(path)
    before = read(folder, tmp_path / "masks")
    done = exported(folder, tmp_path / "out", to, masks=tmp_path / "masks")
    assert done.masks == 5, "both pictures called twin have that mask"
    assert done.masks_dir is not None
    after = read(tmp_path / "out" / done.pictures_dir, tmp_path / "out" / done.masks_dir)
    assert {key: (value[2], value[3]) for key, value in after.items()} == {
        key: (value[2], value[3]) for key, value in before.items()
    }


@pytest.mark.parametrize("to", ["imagefolder", "csv"])
def test_the_datasets_library_reads_it(
    to: Format, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    write_picture(folder / "test_1.png", seed=30, caption="a picture named like a split")
    Image.new("L", (64, 64), 9).save(tmp_path / "plain.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "plain.png").rename(tmp_path / "masks" / "test_1.png")
    expected = {key: value[0] if value[1] else None for key, value in read(folder).items()}
    exported(folder, tmp_path / "out", to, masks=tmp_path / "masks")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = loaded["train"].cast_column("image", datasets.Image(decode=False))
    rows = rows.cast_column("mask", datasets.Image(decode=False))
    found = {}
    for row in rows:
        data = row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()
        found[hashlib.sha256(data).hexdigest()] = row["text"]
    if to == "csv":  # pandas, which reads it for the library, takes these for nothing
        expected = {key: None if text in ("", "NA") else text for key, text in expected.items()}
    assert found == expected
    assert sum(row["mask"] is not None for row in rows) == 1


def test_a_table_that_cannot_be_read_to_its_end_is_told(folder: Path, tmp_path: Path) -> None:
    with (folder / "metadata.jsonl").open("a", encoding="utf-8") as table:
        table.write("\n{")
    [note] = exported(folder, tmp_path / "out", "plain").notes[-1:]
    assert "line 3 is not JSON" in note


def test_the_csv_is_one_that_spreadsheets_read(folder: Path, tmp_path: Path) -> None:
    exported(folder, tmp_path / "out", "csv")
    with (tmp_path / "out" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["file_name"]: row["text"] for row in csv.DictReader(file)}
    assert rows["plain.png"] == CAPTION
    assert rows["none.png"] is None


def problem_codes(folder: Path, out: Path, to: Format, **options: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        exported(folder, out, to, **options)
    return [problem.code for problem in caught.value.problems]


def test_what_cannot_be_is_told_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "link").symlink_to(folder)
    assert problem_codes(folder, folder / "out", "plain") == ["out.input"]
    assert problem_codes(folder, folder, "plain") == ["out.input"]
    assert problem_codes(folder, tmp_path / "link" / "x", "plain") == ["out.input"]
    assert problem_codes(folder, folder / ".." / "mine" / "x", "plain") == ["out.input"]
    assert problem_codes(folder, tmp_path / "other" / "..", "plain") == ["out.input"]
    (tmp_path / "link").unlink()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert problem_codes(folder, tmp_path / "dangling", "plain") == ["out.exists"]
    (tmp_path / "dangling").unlink()
    assert problem_codes(folder, tmp_path / "x", "plain", repeats=2) == ["export.kohya_only"]
    assert problem_codes(folder, tmp_path / "x", "kohya", repeats=0, concept="a/b") == [
        "export.repeats",
        "dataset.name",
    ]
    assert problem_codes(tmp_path / "gone", tmp_path / "x", "plain") == ["dataset.missing_folder"]
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    painted = write_picture(folder / ".atelier" / "masks" / "plain.png", seed=50)
    command = ["export", str(folder), "--to", "imagefolder", "--out", str(tmp_path / "out"), "--zip", "--json"]
    answers = []
    for _ in range(2):
        code = main(command)
        answers.append((code, json.loads(capfd.readouterr().out)))
    assert (answers[0][0], answers[0][1]["out"], answers[0][1]["pictures"]) == (0, str(tmp_path / "out.zip"), 9)
    assert (answers[1][0], answers[1][1]["error"][0]["code"]) == (2, "out.exists")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.testzip() is None
        assert archive.read("masks/images/plain.png") == painted.read_bytes(), "masks painted on the page go along"


def test_only_the_named_pictures(folder: Path, tmp_path: Path) -> None:
    named = ["plain.png", "10_red cat/deep/a.png", "broken.png"]
    done = exported(folder, tmp_path / "out", "plain", names=named)
    assert (done.pictures, [each.path.name for each in done.skipped]) == (2, ["broken.png"])
    before = read(folder)
    assert read(tmp_path / "out").items() <= before.items()
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["a.png", "plain.png"]
    for wrong, told in ((["gone.png", "../x.png"], "2 of the named pictures are not"), (["broken.png"], "can be used")):
        with pytest.raises(UserError, match=told):
            exported(folder, tmp_path / "other", "plain", names=wrong)
    assert not (tmp_path / "other").exists()
