"""Crop boxes: kept per folder, never out of the picture, and a damaged file is no obstacle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.curation.crops import Box, read_crops, write_crop
from trainer.curation.edit_log import edits_dir
from trainer.errors import UserError
from trainer.runs.store import Workspace


def test_boxes_are_kept_per_folder(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    first, second = tmp_path / "first", tmp_path / "second"
    assert read_crops(workspace, first) == {}
    write_crop(workspace, first, "10_cat/a.png", Box(0.25, 0, 0.75, 1))
    write_crop(workspace, first, "b.png", Box(0, 0, 0.5, 0.5))
    write_crop(workspace, first, "b.png", Box(0.5, 0.5, 1, 1))
    assert read_crops(workspace, first) == {"10_cat/a.png": Box(0.25, 0, 0.75, 1), "b.png": Box(0.5, 0.5, 1, 1)}
    assert read_crops(workspace, second) == {}
    write_crop(workspace, first, "b.png", None)
    write_crop(workspace, first, "never.png", None)
    assert list(read_crops(workspace, first)) == ["10_cat/a.png"]


@pytest.mark.parametrize(
    "sides", [(0.5, 0, 0.5, 1), (0.6, 0, 0.4, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.01), (0, float("nan"), 1, 1)]
)
def test_boxes_that_are_none(sides: tuple[float, float, float, float]) -> None:
    with pytest.raises(UserError) as caught:
        Box(*sides)
    assert caught.value.problems[0].code == "crop.box"


@pytest.mark.parametrize(
    ("box", "size", "pixels"),
    [
        (Box(0, 0, 1, 1), (640, 480), (0, 0, 640, 480)),
        (Box(0.25, 0.5, 0.75, 1), (100, 50), (25, 25, 75, 50)),
        (Box(0.98, 0.98, 1, 1), (4, 4), (3, 3, 4, 4)),
    ],
)
def test_pixels(box: Box, size: tuple[int, int], pixels: tuple[int, int, int, int]) -> None:
    assert box.pixels(*size) == pixels


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"a.png": [0, 0, 2, 1], "b.png": "x", "c.png": [0, 0, 1, 1, 1]}'])
def test_a_damaged_file_reads_as_no_boxes(text: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    path = edits_dir(workspace, tmp_path / "pictures") / "crops.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    assert read_crops(workspace, tmp_path / "pictures") == {}
    write_crop(workspace, tmp_path / "pictures", "d.png", Box(0, 0, 1, 1))
    assert json.loads(path.read_text(encoding="utf-8")) == {"d.png": [0, 0, 1, 1]}
