"""What the scripts of the Runs tab fetch: curves, previews, the settings of a picture, a comparison. No gradio in here.

Addresses name runs by id and pictures by plain file name; both are looked up, never joined to a path unseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from trainer.errors import UserError
from trainer.pictures import read_settings
from ui.comparison import MOST_RUNS, compare
from ui.context import AppContext
from ui.curves import Stretch
from ui.media import found_run, sample_file
from ui.messages import as_text
from ui.run_view import RunReader, SampleWall, readers_of

_FRESH = {"cache-control": "no-store"}


def add_routes(context: AppContext) -> None:
    """Serve them."""
    workspace = context.workspace
    readers = readers_of(workspace.dir)

    def of_run(answer: Callable[[RunReader, Request], Response]) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            return answer(readers.of(found_run(workspace, request.path_params["run_id"])), request)

        return endpoint

    def settings(request: Request) -> Response:
        try:
            return _json(read_settings(sample_file(workspace, request)))
        except UserError as error:
            return _json({"problem": as_text(error)})

    def comparison(request: Request) -> Response:
        ids = dict.fromkeys(request.query_params.get("runs", "").split(","))
        return _json(compare(workspace, readers, list(ids)[:MOST_RUNS]))

    page = context.page
    page.route("/atelier/runs/{run_id}/curves", of_run(_curves))
    page.route("/atelier/runs/{run_id}/metrics.csv", of_run(_csv))
    page.route("/atelier/runs/{run_id}/previews", of_run(_previews))
    page.route("/atelier/runs/{run_id}/samples/{name}/settings", settings)
    page.route("/atelier/compare", comparison)


def wall_json(wall: SampleWall) -> dict[str, Any]:
    """A wall as the scripts take it: each picture as its file name and a stamp that changes with it."""
    cells = [[None if cell is None else [cell.name, cell.time] for cell in row] for row in wall.cells]
    return {"prompts": wall.prompts, "steps": wall.steps, "cells": cells}


def _curves(reader: RunReader, request: Request) -> Response:
    asked = request.query_params
    try:
        stretch = Stretch(
            axis="time" if asked.get("axis") == "time" else "step",
            first=_finite(asked.get("first")),
            last=_finite(asked.get("last")),
            points=int(asked.get("points", Stretch.points)),
            keep=_finite(asked.get("keep")),
        )
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    if stretch.keep is not None and not 0 <= stretch.keep < 1:
        raise HTTPException(400, "keep must be at least 0 and below 1")
    return Response(reader.curves(stretch), media_type="application/json", headers=_FRESH)


def _csv(reader: RunReader, request: Request) -> Response:
    headers = {"content-disposition": f'attachment; filename="{reader.run.id}.csv"', **_FRESH}
    return StreamingResponse(reader.csv(), media_type="text/csv", headers=headers)


def _previews(reader: RunReader, request: Request) -> Response:
    reader.view()
    return _json(wall_json(reader.wall()))


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json", headers=_FRESH)


def _finite(text: str | None) -> float | None:
    """Raises ValueError for what is no finite number."""
    if text is None:
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
