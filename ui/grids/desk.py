"""What the page does with grids: weighing one up, starting, ending and going on with it, and how each stands.

No gradio in here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from trainer.errors import Problem, UserError
from trainer.file_states import Mark, mark_of
from trainer.grids.axes import KINDS, Axis
from trainer.grids.spec import AXES, MAX_CELLS, GridSpec, parse_grid
from trainer.grids.store import PUTTING_TOGETHER, Grid, GridInfo, Progress, grid_of, grids, new_grid
from trainer.grids.tables import JSON_NAME
from trainer.picture_pace import PicturePace
from trainer.pictures import PictureSettings
from trainer.runs.bin import Bin, BinItem
from trainer.studio import Answer, Studio, read_answer
from ui.context import AppContext
from ui.lora_choices import check_lora, check_model
from ui.run_view import duration

LISTED = 60
"""Grids in the list, newest first."""


class GridDesk:
    """The grids of a workspace, drawn by its picture process."""

    def __init__(self, context: AppContext, studio: Studio) -> None:
        self._context = context
        self._workspace = context.workspace
        self._studio = studio
        self._pace = PicturePace(context.workspace)
        self._infos: dict[str, GridInfo] = {}
        self._counted: dict[str, tuple[Mark, Progress]] = {}

    def weigh(self, base: PictureSettings, axes: Mapping[str, Any]) -> dict[str, Any]:
        """How many pictures that would be and how long they would take, or what is wrong, axis by axis."""
        try:
            spec = self._parsed(base, axes)
        except UserError as error:
            each = self._pace.expected_s([base])
            return {"words": "", "problems": [_told(problem, each) for problem in error.problems]}
        counted = math.prod(spec.shape)
        words = f"{counted} {'picture' if counted == 1 else 'pictures'} ({_shape(spec)})"
        expected = self._pace.expected_s(_settings(spec))
        return {"words": words + (f", about {duration(expected)}" if expected else ""), "problems": []}

    def start(self, base: PictureSettings, axes: Mapping[str, Any]) -> Grid:
        """Have a new grid drawn. Raises UserError with everything that is wrong."""
        spec = self._parsed(base, axes)
        if not spec.base.prompt.strip() and not any(axis.kind == "prompt" for axis in spec.axes.values()):
            raise UserError("generate.prompt", "The prompt is empty.", "Say what to draw.", "base.prompt")
        grid = new_grid(self._workspace, spec)
        self._studio.draw_grid(grid.id, spec.base)
        return grid

    def go_on(self, grid_id: str) -> None:
        """Have the missing cells drawn, and those that could not be."""
        grid = grid_of(self._workspace, grid_id)
        if grid.id not in self._requests():
            grid.try_again()
            self._studio.draw_grid(grid.id, self._info(grid).spec.base)

    def cancel(self, grid_id: str) -> None:
        """End the drawing; what is drawn stays."""
        request = self._requests().get(grid_id)
        if request is not None:
            self._studio.cancel(request)

    def delete(self, grid_id: str) -> BinItem:
        """Move a grid into the bin. Raises UserError while it is being drawn."""
        grid = grid_of(self._workspace, grid_id)
        if grid.id in self._requests():
            raise UserError("grid.drawing", "This grid is still being drawn.", "Cancel it first.")
        return Bin(self._workspace.dir).put(grid.dir, "grid", f"grid {_title(self._info(grid).spec)}")

    def wake(self) -> None:
        """See to it that grids that were being drawn when the machine went down go on."""
        if self._requests():
            self._studio.ensure()

    def last_axes(self) -> dict[str, Any]:
        """The axes of the newest grid; a small example where there is none."""
        for grid in self._grids()[:1]:
            axes = self._info(grid).spec.axes
            return {name: axis.model_dump() | {"values": _as_typed(axis)} for name, axis in axes.items()}
        return {"x": {"kind": "seed", "values": "1-3"}, "y": {"kind": "guidance", "values": "3-9 (+3)"}}

    def look(self, chosen: str) -> tuple[str, str]:
        """Changes with what is shown; then the id of the grid shown: the chosen one, else the newest."""
        found = self._grids()
        ids = [grid.id for grid in found]
        shown = chosen if chosen in ids else next(iter(ids), "")
        requests = self._requests()
        counts = [(grid.id, grid.id in requests, self._progress(grid)) for grid in found]
        answer = self._answer(requests.get(shown))
        step = (answer.state, answer.what, answer.step, answer.steps) if answer else None
        return f"{shown}|{hash(str((counts, step)))}", shown

    def shown(self, grid_id: str) -> str:
        """All that the page shows, as one JSON text: long lists would be observed entry by entry in the browser."""
        requests = self._requests()
        listed = [self._entry(grid, requests) for grid in self._grids()]
        grid = grid_of(self._workspace, grid_id) if grid_id else None
        return json.dumps({"grids": listed, "shown": self._sheet(grid, requests) if grid else None})

    def _parsed(self, base: PictureSettings, axes: Mapping[str, Any]) -> GridSpec:
        given = axes if isinstance(axes, Mapping) else {}  # it comes from the browser
        values = {name: given[name] for name in AXES if given.get(name)}
        return parse_grid({"base": base.model_dump(), **values}, self._file_of)

    def _file_of(self, kind: str, text: str) -> str:
        return check_model(self._context, text) if kind == "model" else str(check_lora(self._context, text))

    def _grids(self) -> list[Grid]:
        """The newest grids; a damaged folder must not hide the others."""
        found = []
        for grid in grids(self._workspace)[:LISTED]:
            with suppress(UserError):
                self._info(grid)
                found.append(grid)
        return found

    def _requests(self) -> dict[str, str]:
        """The grids that are being drawn or wait for it, each with its request."""
        return {request.grid: request.id for request in self._studio.pending() if request.kind == "grid"}

    def _answer(self, request: str | None) -> Answer | None:
        """How a request stands. A picture process that died meanwhile is started again."""
        if request is None:
            return None
        self._studio.ensure()
        return read_answer(self._studio.answers_dir, request)

    def _info(self, grid: Grid) -> GridInfo:
        """``grid.json``, read once: it never changes."""
        if grid.id not in self._infos:
            self._infos[grid.id] = grid.read()
        return self._infos[grid.id]

    def _progress(self, grid: Grid) -> Progress:
        """How far a grid is, counted again when its folder has changed."""
        mark, known = mark_of(grid.cells_dir), self._counted.get(grid.id)
        if known is None or known[0] != mark:
            known = self._counted[grid.id] = (mark, grid.progress(self._info(grid).spec))
        return known[1]

    def _entry(self, grid: Grid, requests: Mapping[str, str]) -> dict[str, Any]:
        info, progress = self._info(grid), self._progress(grid)
        part = f"{progress.drawn} of " if progress.drawn < progress.total else ""
        return {
            "id": grid.id,
            "title": _title(info.spec),
            "created": info.created,
            "words": f"{part}{progress.total}",
            "busy": grid.id in requests,
        }

    def _sheet(self, grid: Grid, requests: Mapping[str, str]) -> dict[str, Any]:
        """One grid with what is in each of its cells."""
        spec, progress = self._info(grid).spec, self._progress(grid)
        answer = self._answer(requests.get(grid.id))
        files = grid.files()
        failed = {
            cell.name: " ".join(f"{each['message']} {each['hint']}".strip() for each in grid.failure(cell))
            for cell in spec.cells()
            if f"{cell.name}.json" in files and f"{cell.name}.png" not in files
        }
        return {
            "id": grid.id,
            "title": _title(spec),
            "prompt": spec.base.prompt,
            "axes": {name: {"title": axis.title, "labels": axis.labels} for name, axis in spec.axes.items()},
            "drawn": [cell.name for cell in spec.cells() if f"{cell.name}.png" in files],
            "failed": failed,
            "total": progress.total,
            "busy": answer is not None,
            "words": self._words(spec, progress, answer, files),
            "share": _share(progress, answer),
            "ready": answer is None and (grid.dir / JSON_NAME).is_file(),
        }

    def _words(self, spec: GridSpec, progress: Progress, answer: Answer | None, files: set[str]) -> str:
        done = f"{progress.drawn} of {progress.total} pictures"
        if answer is None:
            if progress.left:
                return f"Stopped: {done}."
            failed = f"{done}, {progress.failed} could not be drawn."
            return failed if progress.failed else f"{progress.total} pictures."
        if answer.what == PUTTING_TOGETHER:
            return f"{PUTTING_TOGETHER.capitalize()}: {done}."
        if answer.state == "waiting":
            what = answer.what if answer.what.startswith("waiting") else "waiting for its turn"
            return f"{what[0].upper()}{what[1:]}: {done}."
        if answer.what == "loading the model":
            return f"Loading the model: {done}."
        expected = self._pace.expected_s(_settings(spec, leaving_out=files))
        return f"Drawing: {done}" + (f", about {duration(expected)} left." if expected else ".")


def _settings(spec: GridSpec, leaving_out: Collection[str] = ()) -> Iterator[PictureSettings]:
    """The settings of the cells without a file; those whose values do not go together are passed over."""
    for cell in spec.cells():
        if f"{cell.name}.png" in leaving_out or f"{cell.name}.json" in leaving_out:
            continue
        try:
            yield spec.settings_of(cell)
        except UserError:
            continue


def _told(problem: Problem, picture_s: float | None) -> dict[str, str]:
    """A problem with the axis that it is of; what is too much says how long it would take."""
    axis, _, _ = problem.field.partition(".")
    text = str(problem)
    if problem.code == "grid.cells" and picture_s:
        text += f" At the limit it takes about {duration(picture_s * MAX_CELLS)} already."
    return {"axis": axis if axis in AXES else "", "text": text}


def _as_typed(axis: Axis) -> list[str]:
    """The values as they can be typed in: as text, since the browser rounds large seeds."""
    return [str(value) for value in axis.values] if axis.kind in ("lora", "model") else axis.labels


def _shape(spec: GridSpec) -> str:
    return " × ".join(str(len(axis.values)) for axis in spec.axes.values())


def _title(spec: GridSpec) -> str:
    return " × ".join(KINDS[axis.kind].title for axis in spec.axes.values())


def _share(progress: Progress, answer: Answer | None) -> float:
    """How much is done, the steps of the picture being drawn included."""
    part = answer.step / answer.steps if answer and answer.steps else 0.0
    return min(1.0, (progress.total - progress.left + part) / progress.total)
