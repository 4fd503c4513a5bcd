"""A grid's data files and its archive."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

from PIL import Image

from trainer.errors import Problem
from trainer.grids.spec import Cell, parse_grid
from trainer.grids.store import create_grid
from trainer.grids.tables import archive, write_tables
from trainer.pictures import save_png


def test_every_cell_is_in_the_tables_and_every_picture_in_the_archive(tmp_path: Path) -> None:
    spec = parse_grid(
        {
            "base": {"prompt": "a, b\nc", "loras": [{"path": "/l/a.safetensors"}]},
            "x": {"kind": "weight", "values": "0.5, 1"},
            "y": {"kind": "sampler", "values": "DPM++ 2M, LCM"},
            "z": {"kind": "schedule", "values": "Karras"},
        }
    )
    grid = create_grid(tmp_path / "g", spec)
    exact = spec.settings_of(Cell(0, 0, 0)).model_copy(update={"width": 72, "height": 64})
    save_png(Image.new("RGB", (72, 64)), grid.picture(Cell(0, 0, 0)), exact.model_dump())
    grid.fail(Cell(1, 0, 0), [Problem("x", "It does not fit.")])
    write_tables(grid, spec, 0.5)

    data = json.loads((grid.dir / "data.json").read_text())
    assert data["axes"]["x"]["labels"] == ["0.5", "1"]
    assert data["sheet_scale"] == 0.5
    cells = {cell["cell"]: cell for cell in data["cells"]}
    assert list(cells) == ["0-0-0", "1-0-0", "0-1-0", "1-1-0"]
    first = cells["0-0-0"]
    assert (first["file"], first["settings"]["width"], first["settings"]["height"]) == ("cells/0-0-0.png", 72, 64)
    assert first["settings"]["loras"][0]["weight"] == 0.5
    assert (cells["1-0-0"]["file"], cells["1-0-0"]["problem"]) == (None, "It does not fit.")
    assert "sampler lcm" in cells["0-1-0"]["problem"]
    assert cells["0-1-0"]["settings"] is None

    rows = list(csv.DictReader((grid.dir / "data.csv").open(newline="")))
    assert [row["x: LoRA weight"] for row in rows] == ["0.5", "1", "0.5", "1"]
    assert rows[0]["prompt"] == "a, b\nc"
    assert json.loads(rows[1]["loras"])[0]["weight"] == 1

    pieces = list(archive(grid))
    assert len(pieces) > 3
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == ["data.json", "data.csv", "grid.json", "cells/0-0-0.png"]
        assert packed.read("cells/0-0-0.png") == grid.picture(Cell(0, 0, 0)).read_bytes()
