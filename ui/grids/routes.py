"""What the scripts of the grids fetch: pictures and settings of cells, the sheet, all of it as one archive.

Addresses name grids by id and cells by plain file name; both are looked up, never joined to a path unseen.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from trainer.errors import UserError
from trainer.grids.store import Grid, grid_of
from trainer.grids.tables import archive
from trainer.pictures import read_settings
from ui.context import AppContext
from ui.media import picture_answer, picture_file
from ui.messages import as_text

_FRESH = {"cache-control": "no-store"}


def add_routes(context: AppContext) -> None:
    """Serve them."""
    workspace = context.workspace

    def found(request: Request) -> Grid:
        try:
            return grid_of(workspace, request.path_params["grid_id"])
        except UserError as error:
            raise HTTPException(404) from error

    def cell(request: Request) -> Response:
        return picture_answer(workspace, picture_file(found(request).cells_dir, request), request)

    def settings(request: Request) -> Response:
        path = picture_file(found(request).cells_dir, request)
        try:
            return JSONResponse(read_settings(path), headers=_FRESH)
        except UserError as error:
            return JSONResponse({"problem": as_text(error)}, headers=_FRESH)

    def sheet(request: Request) -> Response:
        grid = found(request)
        if not grid.sheet_path.is_file():
            raise HTTPException(404)
        return FileResponse(grid.sheet_path, filename=f"grid-{grid.id}.png", headers=_FRESH)

    def zipped(request: Request) -> Response:
        grid = found(request)
        headers = {"content-disposition": f'attachment; filename="grid-{grid.id}.zip"', **_FRESH}
        return StreamingResponse(archive(grid), media_type="application/zip", headers=headers)

    page = context.page
    page.route("/atelier/grids/{grid_id}/cells/{name}", cell)
    page.route("/atelier/grids/{grid_id}/cells/{name}/settings", settings)
    page.route("/atelier/grids/{grid_id}/sheet.png", sheet)
    page.route("/atelier/grids/{grid_id}/grid.zip", zipped)
