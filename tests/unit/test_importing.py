"""Data sets of the datasets library become folders of pictures with captions beside them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.dataset_samples import Recorded
from trainer.config import Source
from trainer.curation.importing import Imported, import_set, library_path
from trainer.errors import StoppedOnRequest, UserError

ROOT = Path(__file__).resolve().parents[2]


def encoded(colour: str, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (10, 8), colour).save(buffer, kind)
    return buffer.getvalue()


ROWS: list[dict[str, Any]] = [
    {"photo": {"bytes": encoded("red", "PNG"), "path": None}, "text": "red\nsecond line", "many": ["a", "b"]},
    {"photo": {"bytes": encoded("blue", "JPEG"), "path": None}, "text": "größe", "many": []},
    {"photo": None, "text": "no picture", "many": ["c"]},
    {"photo": {"bytes": encoded("green", "WEBP"), "path": None}, "text": None, "many": ["d"]},
]


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("datasets", reason="the optional package `datasets` is not installed")


@pytest.fixture
def saved(library: Any, tmp_path: Path) -> Path:
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    data = library.Dataset.from_dict(columns).cast_column("photo", library.Image())
    library.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def imported(saved: Path | str, out: Path, split: str | None = None, **columns: Any) -> Imported:
    return import_set(Source(path=str(saved), **columns), split, out, Recorded())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_saved_set_becomes_pictures_and_caption_files(saved: Path, tmp_path: Path) -> None:
    done = imported(saved, tmp_path / "sets" / "new")
    assert (done.pictures, done.captions, done.empty) == (3, 2, 1)
    assert contents(tmp_path / "sets" / "new") == {
        "0000000.png": ROWS[0]["photo"]["bytes"],
        "0000000.txt": b"red\nsecond line",
        "0000001.jpg": ROWS[1]["photo"]["bytes"],
        "0000001.txt": "größe".encode(),
        "0000003.webp": ROWS[3]["photo"]["bytes"],
    }
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["new"]


def test_split_and_columns_are_chosen(saved: Path, tmp_path: Path) -> None:
    imported(saved, tmp_path / "new", "test", caption_column="many", image_column="photo")
    assert sorted(contents(tmp_path / "new")) == ["0000000.png", "0000000.txt"]
    assert (tmp_path / "new" / "0000000.txt").read_text(encoding="utf-8") == "a\nb", (
        "of several captions each is a line"
    )


def code_of(saved: Path | str, out: Path, split: str | None = None, **columns: Any) -> str:
    with pytest.raises(UserError) as caught:
        imported(saved, out, split, **columns)
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]
    return caught.value.problems[0].code


def test_what_is_wrong_is_told_and_nothing_is_written(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    assert code_of(saved, out, "validation") == "dataset.splits"
    assert code_of(saved, out, image_column="text") == "dataset.image_column"
    assert code_of(saved, out, caption_column="nope") == "dataset.caption_column"
    assert code_of(saved, saved) == "out.exists"
    (tmp_path / "plain").mkdir()
    assert code_of(tmp_path / "plain", out) == "import.folder"
    for name in ("  ", "nothing here", "https://example.org/x", "/no/such/place.parquet", "../x/y/z"):
        assert code_of(name, out) == "import.unknown"
    assert not out.exists()


def test_names_of_the_hub_may_leave_the_beginning_out() -> None:
    assert library_path("owner/name") == "hf://datasets/owner/name"
    assert library_path(" owner/na.me@refs/pr/1 ") == "hf://datasets/owner/na.me@refs/pr/1"
    assert library_path("hf://datasets/owner/name") == "hf://datasets/owner/name"


def test_without_the_package_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        imported("owner/name", tmp_path / "new")


def test_a_cancelled_import_leaves_nothing(saved: Path, tmp_path: Path) -> None:
    class Cancelling(Recorded):
        def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
            if fields.get("done") == 2:
                raise StoppedOnRequest("stopped on request")

    with pytest.raises(StoppedOnRequest):
        import_set(Source(path=str(saved)), None, tmp_path / "new", Cancelling())
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_the_command(saved: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"

    def run(name: str, *options: str) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "trainer", "import", str(saved), "--name", name, "--json", *options]
        done = subprocess.run(
            [*command, f"--workspace={workspace}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        )
        return done.returncode, json.loads(done.stdout)

    code, answer = run("mine")
    assert (code, answer["pictures"], answer["captions"]) == (0, 3, 2)
    assert answer["out"] == str(workspace / "datasets" / "mine")
    for name, told in (("mine", "out.exists"), ("../evil", "dataset.name"), ("/etc/evil", "dataset.name")):
        code, answer = run(name)
        assert (code, answer["error"][0]["code"]) == (2, told)
    assert [path.name for path in (workspace / "datasets").iterdir()] == ["mine"]
