"""The sheet: every picture at its place, labels that fit, and a bounded size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from trainer.errors import Problem
from trainer.grids import sheet
from trainer.grids.sheet import wrapped, write_sheet
from trainer.grids.spec import Cell, GridSpec, parse_grid
from trainer.grids.store import Grid, create_grid
from trainer.pictures import OUR_CHUNK, read_settings, save_png


def spec_of(shape: tuple[int, int, int], prompt: str = "p") -> GridSpec:
    axes = {
        "x": {"kind": "seed", "values": f"1-{shape[0]}"},
        "y": {"kind": "prompt", "values": [f"{prompt} {number}" for number in range(shape[1])]},
        "z": {"kind": "steps", "values": f"1-{shape[2]}"},
    }
    return parse_grid({"base": {"prompt": "a star"}, **axes})


def colour(cell: Cell) -> tuple[int, int, int]:
    return 40 + 50 * cell.x, 40 + 50 * cell.y, 40 + 50 * cell.z


def filled(folder: Path, spec: GridSpec, size: tuple[int, int], leave: tuple[Cell, ...] = ()) -> Grid:
    grid = create_grid(folder, spec)
    for cell in spec.cells():
        if cell not in leave:
            save_png(Image.new("RGB", size, colour(cell)), grid.picture(cell), {})
    return grid


def test_each_picture_is_whole_and_in_order(tmp_path: Path) -> None:
    spec = spec_of((3, 2, 2))
    assert write_sheet(filled(tmp_path / "g", spec, (96, 64)), spec) == 1.0
    with Image.open(tmp_path / "g" / "sheet.png") as image:
        pixels = image.convert("RGB")
    places = {}
    for cell in spec.cells():
        mask = Image.eval(Image.merge("RGB", pixels.split()), lambda value: value)
        found = [
            (x, y)
            for y in range(0, mask.height, 4)
            for x in range(0, mask.width, 4)
            if mask.getpixel((x, y)) == colour(cell)
        ]
        assert len(found) >= (96 // 4 - 1) * (64 // 4 - 1), f"cell {cell.name} is not whole"
        places[cell] = found[0]
    assert places[Cell(0, 0, 0)][0] < places[Cell(1, 0, 0)][0] < places[Cell(2, 0, 0)][0]
    assert places[Cell(0, 0, 0)][1] < places[Cell(0, 1, 0)][1]
    assert places[Cell(0, 0, 0)] < places[Cell(0, 0, 1)]


def test_it_carries_the_whole_grid(tmp_path: Path) -> None:
    spec = spec_of((2, 1, 1))
    grid = filled(tmp_path / "g", spec, (64, 64))
    write_sheet(grid, spec)
    assert read_settings(grid.sheet_path)["prompt"] == "a star"
    with Image.open(grid.sheet_path) as image:
        told = json.loads(image.text[OUR_CHUNK])
    assert told["grid"]["x"]["values"] == [1, 2]


def test_cells_that_are_missing_or_failed_leave_the_others_in_place(tmp_path: Path) -> None:
    spec = spec_of((2, 2, 1))
    missing = Cell(1, 0, 0), Cell(1, 1, 0)
    whole, part = filled(tmp_path / "a", spec, (96, 96)), filled(tmp_path / "b", spec, (96, 96), leave=missing)
    part.fail(missing[1], [Problem("x", "It does not fit " * 40)])
    write_sheet(whole, spec)
    write_sheet(part, spec)
    with Image.open(whole.sheet_path) as one, Image.open(part.sheet_path) as two:
        assert one.size == two.size
        assert any(pixel[0] > 120 > pixel[1] for pixel in two.convert("RGB").getdata()), "the reason is written in red"


def test_a_sheet_that_would_be_too_large_is_scaled_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "LONGEST_SIDE_PX", 900)
    monkeypatch.setattr(sheet, "MOST_PIXELS", 500_000)
    spec = spec_of((4, 4, 1))
    grid = filled(tmp_path / "g", spec, (320, 320))
    scale = write_sheet(grid, spec)
    with Image.open(grid.sheet_path) as image:
        assert max(image.size) <= 900
        assert image.width * image.height <= 500_000
    assert 0.2 < scale < 0.7


def test_labels_are_wrapped_and_cut() -> None:
    def length(text: str) -> float:
        return len(text)

    assert wrapped("a red star", length, 20, 3) == ["a red star"]
    assert wrapped("a red star on blue", length, 8, 3) == ["a red", "star on", "blue"]
    assert wrapped("a red star on blue", length, 8, 2) == ["a red", "star on…"]
    assert wrapped("abcdefghij", length, 4, 9) == ["abcd", "efgh", "ij"]
    assert wrapped("", length, 4, 9) == [""]
    font = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines = wrapped("unbreakable" * 30 + " " + "words " * 100, font.textlength, 90, 4)
    assert len(lines) == 4
    assert all(font.textlength(line) <= 90 for line in lines)
