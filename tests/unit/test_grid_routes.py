"""What the scripts of the grids fetch, asked without a browser."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from trainer.grids.drawing import finish_grid
from trainer.grids.spec import Cell, parse_grid
from trainer.grids.store import Grid, new_grid
from trainer.pictures import save_png
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.grids.routes import add_routes


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    spec = parse_grid({"base": {"prompt": "<i>a star"}, "x": {"kind": "seed", "values": "1-2"}})
    grid = new_grid(Workspace(tmp_path), spec)
    settings = spec.settings_of(Cell(0, 0, 0)).model_dump()
    save_png(Image.new("RGB", (600, 300)), grid.picture(Cell(0, 0, 0)), settings)
    return grid


@pytest.fixture
def client(grid: Grid, tmp_path: Path) -> TestClient:
    context = AppContext(Workspace(tmp_path))
    add_routes(context)
    return TestClient(Starlette(routes=context.page.routes))


def test_cells_and_their_settings(client: TestClient, grid: Grid) -> None:
    cell = f"/atelier/grids/{grid.id}/cells/0-0-0.png"
    assert client.get(cell).content == grid.picture(Cell(0, 0, 0)).read_bytes()
    assert Image.open(io.BytesIO(client.get(f"{cell}?thumbnail").content)).size == (256, 128)
    assert client.get(f"{cell}/settings").json()["prompt"] == "<i>a star"


def test_the_sheet_and_the_archive(client: TestClient, grid: Grid) -> None:
    assert client.get(f"/atelier/grids/{grid.id}/sheet.png").status_code == 404
    finish_grid(grid, grid.read().spec)
    assert client.get(f"/atelier/grids/{grid.id}/sheet.png").content == grid.sheet_path.read_bytes()
    answer = client.get(f"/atelier/grids/{grid.id}/grid.zip")
    assert f'filename="grid-{grid.id}.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert packed.testzip() is None
        assert {"sheet.png", "data.json", "data.csv", "cells/0-0-0.png"} <= set(packed.namelist())


@pytest.mark.parametrize(
    "missing",
    ["gone/grid.zip", "gone/sheet.png", "{id}/cells/9-9-9.png", "{id}/cells/..%2fgrid.json", "..%2fx/grid.zip"],
)
def test_what_is_not_there(client: TestClient, grid: Grid, missing: str) -> None:
    assert client.get(f"/atelier/grids/{missing.format(id=grid.id)}").status_code == 404
