"""``grid SPEC.yaml``: a picture for each combination of values, and all of them on one sheet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_gpu_sharing
from trainer.config_io import read_yaml
from trainer.errors import UserError
from trainer.grids.axes import NO_LORA
from trainer.grids.spec import GridSpec, parse_grid
from trainer.grids.store import INFO, Grid, create_grid
from trainer.hub_names import hub_file
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to draw, and where to."""
    parser.add_argument(
        "spec",
        type=Path,
        metavar="SPEC.yaml",
        help="`base:` settings of a picture; `x:`, `y:` and `z:` each with `kind:` and `values:`, "
        "a list or ranges as in A1111: 1-10 (+2), 0-1 [5]",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the cells and the sheet; goes on in one")
    add_gpu_sharing(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Draw what is missing. Raises UserError for wrong values, and for a folder that holds something else."""
    source = args.spec.expanduser().resolve()
    spec = _read(source)
    grid = _grid_in(args.out.expanduser().resolve(), spec, source.stem)
    from trainer.devices import pick_device
    from trainer.grids.drawing import draw_grid

    draw_grid(grid, device=pick_device(), events=events, share_gpu=args.share_gpu)
    failed = {cell.name: grid.failure(cell) for cell in spec.cells() if not grid.is_drawn(cell)}
    drawn = grid.progress(spec).drawn
    return {"out": str(grid.dir), "sheet": str(grid.sheet_path), "cells": drawn, "failed": failed}


def describe(answer: dict[str, Any]) -> str:
    """Where the sheet is, and what could not be drawn."""
    failed = [f"{cell}: {' '.join(each['message'] for each in why)}" for cell, why in answer["failed"].items()]
    return "\n".join([f"{answer['cells']} pictures: {answer['sheet']}", *failed])


def _read(source: Path) -> GridSpec:
    """The grid of a file; files that it names are meant from its own folder. Raises UserError, all problems at once."""

    def full(path: str) -> str:
        beside = (source.parent / Path(path).expanduser()).resolve()
        return str(beside) if beside.exists() else path

    def file_of(kind: str, text: str) -> str:
        found = full(text)
        if kind == "lora" and not hub_file(found) and not Path(found).is_file():
            raise UserError("lora.missing", f"there is no file {text}.", f"Check the path, or write {NO_LORA}.")
        return found

    values = read_yaml(source)
    base = values.get("base")
    if isinstance(base, dict):
        base |= {name: full(str(base[name])) for name in ("model", "init_image", "mask") if base.get(name)}
        for use in base["loras"] if isinstance(base.get("loras"), list) else []:
            if isinstance(use, dict) and use.get("path"):
                use["path"] = full(str(use["path"]))
    return parse_grid(values, file_of)


def _grid_in(folder: Path, spec: GridSpec, name: str) -> Grid:
    """The folder's grid where it is the same one, else a new one in a folder that is empty or not there."""
    grid = Grid(folder)
    if (folder / INFO).exists():
        if grid.read().spec == spec:
            return grid
        message = f"--out: {folder} holds another grid."
    elif not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return create_grid(folder, spec, name)
    else:
        message = f"--out: {folder} is not empty."
    raise UserError("out.exists", message, "Choose another folder.", "out")
