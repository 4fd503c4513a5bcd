"""Data sets of the optional ``datasets`` library. Where it is not installed, only what needs no library is tested."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.dataset_samples import Recorded
from trainer.config import DatasetSettings, Source
from trainer.curation.doctor import examine
from trainer.data.datasets_library import is_library_dataset, pictures_of, unpack
from trainer.data.folders import Collection, collect
from trainer.errors import UserError


def encoded(color: str, kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


ROWS = [
    {"image": {"bytes": encoded("red"), "path": None}, "text": "a red one", "other": "x"},
    {"image": {"bytes": encoded("blue", "JPEG"), "path": "elsewhere.jpg"}, "text": "a blue one", "other": "y"},
    {"image": {"bytes": encoded("green", "WEBP"), "path": None}, "text": None, "other": "z"},
]


def collected(path: str | Path, **settings: Any) -> Collection:
    return collect(DatasetSettings.model_validate({"sources": [{"path": str(path), **settings}]}))


def captions(collection: Collection) -> dict[str, str]:
    return {picture.path.name: picture.caption for picture in collection.pictures}


def problem_of(path: str | Path, **settings: Any) -> Any:
    with pytest.raises(UserError) as caught:
        collected(path, **settings)
    [problem] = caught.value.problems
    return problem


def test_what_the_library_reads_is_told_from_folders_of_pictures(tmp_path: Path) -> None:
    for name in ("saved/state.json", "several/dataset_dict.json", "parquet/a.parquet", "hub/data/train.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
        assert is_library_dataset(str(tmp_path / name.partition("/")[0]))
    assert is_library_dataset(str(tmp_path / "parquet" / "a.parquet"))
    assert is_library_dataset("hf://datasets/owner/name")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(encoded("red"))
    (tmp_path / "pictures" / "notes.parquet").write_text("")  # pictures beside it: they are what is meant
    for other in (tmp_path / "pictures", tmp_path / "nowhere", tmp_path / "pictures" / "a.png"):
        assert not is_library_dataset(str(other))


def test_without_the_library_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    problem = problem_of("hf://datasets/owner/name")
    assert problem.code == "dataset.library_missing" and problem.field == "dataset.sources.0.path"
    assert "package datasets" in problem.message and "pip install datasets" in problem.hint


def test_unpacked_rows_are_a_folder_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.png").write_bytes(encoded("white"))
    rows = [
        *ROWS,
        {"image": {"bytes": None, "path": str(tmp_path / "elsewhere.png")}, "text": 'quote " and\nline'},
        {"image": None, "text": "no picture"},
        {"image": {"bytes": b"damaged", "path": None}, "text": "damaged"},
    ]
    unpack(pictures_of(rows, "image", "text"), tmp_path / "out")
    found = collected(tmp_path / "out")
    assert captions(found) == {
        "0000000.png": "a red one", "0000001.jpg": "a blue one", "0000002.webp": "", "0000003.png": 'quote " and\nline',
    }  # fmt: skip
    assert [each.path.name for each in found.skipped] == ["0000005.png"]
    assert (tmp_path / "out" / "0000001.jpg").read_bytes() == ROWS[1]["image"]["bytes"]  # type: ignore[index]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere.png", "out"]


def test_a_broken_off_unpacking_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Any:
        yield ROWS[0]
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        unpack(pictures_of(rows(), "image", "text"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    library = pytest.importorskip("datasets", reason="the optional package `datasets` is not installed")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return library


def dataset(library: Any, rows: list[dict[str, Any]] = ROWS) -> Any:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return library.Dataset.from_dict(columns).cast_column("image", library.Image())


@pytest.mark.parametrize("kind", ["saved", "splits", "parquet", "file"])
def test_local_data_sets(library: Any, tmp_path: Path, kind: str) -> None:
    data, place = dataset(library), tmp_path / "data set"
    if kind == "saved":
        data.save_to_disk(place)
    elif kind == "splits":
        library.DatasetDict({"test": dataset(library, ROWS[:1]), "train": data}).save_to_disk(place)
    else:
        place.mkdir()
        data.to_parquet(place / "train-00000.parquet")
        place = place / "train-00000.parquet" if kind == "file" else place
    found = collected(place, repeats=3)
    assert list(captions(found).values()) == ["a red one", "a blue one", ""]
    assert [(each.key, each.repeats, each.width) for each in found.pictures][:1] == [("0/0000000.png", 3, 40)]
    again = collected(place)
    assert [each.path for each in again.pictures] == [each.path for each in found.pictures]  # unpacked once
    if kind != "file":
        report = examine(place, 32, Recorded())
        assert report.pictures == 3 and report.captions == 2
    other = collected(place, caption_column="other", image_column="image")
    assert list(captions(other).values()) == ["x", "y", "z"]


def test_an_edited_data_set_is_unpacked_anew(library: Any, tmp_path: Path) -> None:
    dataset(library).save_to_disk(tmp_path / "one")
    before = collected(tmp_path / "one")
    changed = [{**row, "text": "new"} for row in ROWS]
    dataset(library, changed).save_to_disk(tmp_path / "two")
    assert set(captions(collected(tmp_path / "two")).values()) == {"new"}
    assert list(captions(before).values()) == ["a red one", "a blue one", ""]


def test_wrong_columns_and_splits_are_told(library: Any, tmp_path: Path) -> None:
    dataset(library).save_to_disk(tmp_path / "one")
    problem = problem_of(tmp_path / "one", caption_column="txt")
    assert problem.field == "dataset.sources.0.caption_column" and "image, text, other" in problem.message
    problem = problem_of(tmp_path / "one", image_column="text")
    assert problem.field == "dataset.sources.0.image_column" and "image" in problem.hint
    library.DatasetDict({"a": dataset(library), "b": dataset(library)}).save_to_disk(tmp_path / "two")
    assert "only a, b" in problem_of(tmp_path / "two").message
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text(json.dumps({}))
    assert problem_of(tmp_path / "broken").code == "dataset.library"


def test_a_name_on_the_hub_is_loaded_from_there(library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, *, revision: str | None) -> Any:
        asked.append((name, revision))
        return {"train": dataset(library)}

    monkeypatch.setattr(library, "load_dataset", load_dataset)
    assert len(collected("hf://datasets/owner/name@v2").pictures) == 3
    collected("hf://datasets/owner/name")
    assert asked == [("owner/name", "v2"), ("owner/name", None)]
    assert Source(path="hf://datasets/owner/name").path
