"""A grid's folder: what it draws, its cells, and what has become of each.

::

    grids/<id>/grid.json          id, name, when it was made, the whole spec
    grids/<id>/cells/3-0-1.png    a cell that is drawn, with its exact settings inside
    grids/<id>/cells/3-0-1.json   why a cell could not be drawn
    grids/<id>/sheet.png          all cells with labels, and data.json and data.csv: see sheet.py and tables.py

Nothing else is kept: a cell is drawn when its picture is whole, so that whoever draws next goes on from there.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from trainer.errors import Problem, UserError
from trainer.files import read_json, write_json
from trainer.grids.spec import Cell, GridSpec
from trainer.runs.store import Workspace
from trainer.versions import GRID

INFO, CELLS = "grid.json", "cells"
PUTTING_TOGETHER = "putting the sheet together"
"""What the request for a grid tells while nothing but that is left."""
_END_OF_PNG = b"IEND\xaeB`\x82"


class GridInfo(BaseModel):
    """``grid.json``. Never changed once it is written."""

    version: Literal[1] = 1
    id: str
    name: str = ""
    """What the page calls it; empty: by its axes."""
    created: float
    """Unix seconds."""
    spec: GridSpec


@dataclass(frozen=True)
class Progress:
    """How many of a grid's cells are drawn, could not be drawn, and are there in all."""

    drawn: int
    failed: int
    total: int

    @property
    def left(self) -> int:
        return self.total - self.drawn - self.failed


@dataclass(frozen=True)
class Grid:
    """One grid folder."""

    dir: Path

    @property
    def id(self) -> str:
        return self.dir.name

    @property
    def cells_dir(self) -> Path:
        return self.dir / CELLS

    @property
    def sheet_path(self) -> Path:
        return self.dir / "sheet.png"

    def read(self) -> GridInfo:
        """``grid.json``. Raises UserError when the folder is not a grid, or one of a newer program."""
        try:
            return GridInfo.model_validate(GRID.read(read_json(self.dir / INFO)))
        except (OSError, ValueError, ValidationError) as error:
            message = f"{self.dir} is not a folder of a grid."
            raise UserError("grid.unreadable", message, f"Its {INFO} is missing or damaged.") from error

    def picture(self, cell: Cell) -> Path:
        """Where a cell's picture is, or will be."""
        return self.cells_dir / f"{cell.name}.png"

    def is_drawn(self, cell: Cell) -> bool:
        """Whether a cell's picture is there, to its last byte."""
        try:
            with self.picture(cell).open("rb") as file:
                file.seek(-len(_END_OF_PNG), os.SEEK_END)
                return file.read() == _END_OF_PNG
        except OSError:
            return False

    def failure(self, cell: Cell) -> list[dict[str, str]]:
        """Why a cell could not be drawn, as in ``trainer.errors.Problem``; empty where it could, or was not tried."""
        try:
            return list(read_json(self._failure_path(cell)))
        except (OSError, ValueError):
            return []

    def fail(self, cell: Cell, problems: Sequence[Problem]) -> None:
        """Write down why a cell cannot be drawn."""
        write_json(self._failure_path(cell), [vars(problem) for problem in problems])

    def try_again(self) -> None:
        """Forget why cells could not be drawn: the reason may be gone."""
        for path in self.cells_dir.glob("*.json"):
            path.unlink(missing_ok=True)

    def next_cell(self, spec: GridSpec) -> Cell | None:
        """The next cell to draw; None when nothing is left."""
        tried = self.files()
        cells = spec.cells()
        return next((cell for cell in cells if f"{cell.name}.json" not in tried and not self.is_drawn(cell)), None)

    def files(self) -> set[str]:
        """The names of all files of cells."""
        with suppress(FileNotFoundError):
            return {path.name for path in self.cells_dir.iterdir()}
        return set()

    def progress(self, spec: GridSpec) -> Progress:
        """How far it is, by the names of its files."""
        files = self.files()
        names = [cell.name for cell in spec.cells()]
        drawn = sum(f"{name}.png" in files for name in names)
        return Progress(
            drawn, sum(f"{name}.json" in files and f"{name}.png" not in files for name in names), len(names)
        )

    def _failure_path(self, cell: Cell) -> Path:
        return self.cells_dir / f"{cell.name}.json"


def grids_dir(workspace: Workspace) -> Path:
    """Where a workspace keeps its grids."""
    return workspace.dir / "grids"


def create_grid(folder: Path, spec: GridSpec, name: str = "") -> Grid:
    """Make a grid's folder. What is in the folder already stays as it is."""
    grid = Grid(folder)
    info = GridInfo(id=grid.id, name=name, created=time.time(), spec=spec)
    grid.cells_dir.mkdir(parents=True, exist_ok=True)
    write_json(grid.dir / INFO, info.model_dump())
    return grid


def new_grid(workspace: Workspace, spec: GridSpec, name: str = "") -> Grid:
    """Make the folder of a new grid in the workspace."""
    return create_grid(grids_dir(workspace) / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}", spec, name)


def grids(workspace: Workspace) -> list[Grid]:
    """All grids, newest first: their names begin with the time."""
    folders = sorted(grids_dir(workspace).glob(f"*/{INFO}"), reverse=True)
    return [Grid(path.parent) for path in folders]


def grid_of(workspace: Workspace, grid_id: Any) -> Grid:
    """The grid of this id. Raises UserError when there is none; an id cannot lead out of the workspace."""
    grid = Grid(grids_dir(workspace) / str(grid_id))
    if not grid_id or Path(grid.id).name != str(grid_id) or not (grid.dir / INFO).is_file():
        raise UserError("grid.unknown", f"There is no grid {grid_id!r}.", "It may have been deleted.")
    return grid
