"""A grid's folder: what counts as drawn, and what is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from trainer.errors import Problem, UserError
from trainer.grids.spec import Cell, parse_grid
from trainer.grids.store import Grid, Progress, create_grid, grid_of, grids, new_grid
from trainer.pictures import save_png
from trainer.runs.store import Workspace

SPEC = parse_grid({"x": {"kind": "seed", "values": "1-3"}, "y": {"kind": "steps", "values": "1-2"}})


def drawn(grid: Grid, *cells: Cell) -> None:
    for cell in cells:
        save_png(Image.new("RGB", (8, 8)), grid.picture(cell), {})


def test_only_whole_pictures_count(tmp_path: Path) -> None:
    grid = create_grid(tmp_path / "g", SPEC)
    first, second, third = list(SPEC.cells())[:3]
    drawn(grid, first, second)
    assert grid.next_cell(SPEC) == third
    grid.picture(first).write_bytes(grid.picture(first).read_bytes()[:-5])
    assert grid.next_cell(SPEC) == first
    grid.picture(second).write_bytes(b"")
    assert not grid.is_drawn(second)


def test_a_failed_cell_is_left_until_it_is_tried_again(tmp_path: Path) -> None:
    grid = create_grid(tmp_path / "g", SPEC)
    cells = list(SPEC.cells())
    grid.fail(cells[0], [Problem("lora.missing", "There is no file.", "Choose another.")])
    drawn(grid, *cells[1:])
    assert grid.next_cell(SPEC) is None
    assert grid.progress(SPEC) == Progress(drawn=5, failed=1, total=6)
    assert grid.failure(cells[0])[0]["message"] == "There is no file."
    grid.try_again()
    assert grid.next_cell(SPEC) == cells[0]
    assert grid.progress(SPEC).left == 1
    drawn(grid, cells[0])
    grid.fail(cells[0], [])
    assert grid.progress(SPEC) == Progress(6, 0, 6), "a picture counts more than an earlier failure"


def test_grids_of_a_workspace(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert grids(workspace) == []
    made = new_grid(workspace, SPEC, "mine")
    assert [grid.id for grid in grids(workspace)] == [made.id]
    info = grid_of(workspace, made.id).read()
    assert (info.id, info.name, info.spec) == (made.id, "mine", SPEC)
    for wrong in ("", "../grids", f"{made.id}/cells", None, "nothing"):
        with pytest.raises(UserError, match="no grid"):
            grid_of(workspace, wrong)
    (made.dir / "grid.json").write_text("{")
    with pytest.raises(UserError, match="not a folder of a grid"):
        made.read()
