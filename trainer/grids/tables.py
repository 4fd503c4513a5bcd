"""A grid's data: the settings of every cell as JSON and CSV, and everything in one zip archive."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

from trainer.errors import UserError
from trainer.files import write_json, write_text
from trainer.grids.spec import Cell, GridSpec
from trainer.grids.store import CELLS, INFO, Grid
from trainer.pictures import PictureSettings, read_settings

JSON_NAME, CSV_NAME = "data.json", "data.csv"


def write_tables(grid: Grid, spec: GridSpec, sheet_scale: float) -> None:
    """Write ``data.json`` and ``data.csv``. ``sheet_scale``: see ``trainer.grids.sheet.write_sheet``."""
    info = grid.read()
    rows = [_row(grid, spec, cell) for cell in sorted(spec.cells(), key=lambda cell: (cell.z, cell.y, cell.x))]
    axes = {
        name: {"kind": axis.kind, "title": axis.title, "labels": axis.labels, "values": axis.values}
        for name, axis in spec.axes.items()
    }
    about = {"id": info.id, "name": info.name, "created": info.created, "sheet_scale": sheet_scale}
    write_json(grid.dir / JSON_NAME, {**about, "axes": axes, "base": spec.base.model_dump(), "cells": rows})
    write_text(grid.dir / CSV_NAME, _csv(spec, rows))


def archive(grid: Grid) -> Iterator[bytes]:
    """The sheet, the tables and all cells as one zip archive, piece by piece, so that it is never in memory whole."""
    files = [grid.dir / name for name in ("sheet.png", JSON_NAME, CSV_NAME, INFO)]
    files += sorted((grid.dir / CELLS).glob("[0-9]*.png"))
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as out:  # pictures do not get smaller
        for path in files:
            if path.is_file():
                out.write(path, path.relative_to(grid.dir).as_posix())
                yield pieces.taken()
    yield pieces.taken()


class _Pieces(io.RawIOBase):
    """A file that cannot be sought in: what was written is taken out again."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def taken(self) -> bytes:
        data = bytes(self._written)
        self._written.clear()
        return data


def _row(grid: Grid, spec: GridSpec, cell: Cell) -> dict[str, Any]:
    drawn = grid.is_drawn(cell)
    settings: dict[str, Any] | None = None
    problem = "" if drawn else " ".join(each["message"] for each in grid.failure(cell))
    try:
        settings = read_settings(grid.picture(cell)) if drawn else spec.settings_of(cell).model_dump()
    except UserError as error:
        problem = str(error)
    labels = {name: axis.labels[cell["xyz".index(name)]] for name, axis in spec.axes.items()}
    file = f"{CELLS}/{cell.name}.png" if drawn else None
    return {"cell": cell.name, "labels": labels, "file": file, "problem": problem, "settings": settings}


def _csv(spec: GridSpec, rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    names = [name for name in PictureSettings.model_fields if name != "count"]
    table = csv.writer(out, lineterminator="\n")
    titles = [f"{name}: {axis.title}" for name, axis in spec.axes.items()]
    table.writerow(["cell", *titles, "file", "problem", *names])
    for row in rows:
        settings = row["settings"] or {}
        values = [settings.get(name) for name in names]
        told = [json.dumps(value) if isinstance(value, list) else value for value in values]
        table.writerow([row["cell"], *row["labels"].values(), row["file"], row["problem"], *told])
    return out.getvalue()
