"""Routes for the pictures and LoRA files of the workspace: by run id and plain file name, never by path.

Gradio's own file serving is not used for them: it copies each file into a cache, and shows HTML and SVG in place.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from trainer.checkpoint_folders import LORA, checkpoint_at
from trainer.data.image_files import PICTURE_ERRORS, open_picture
from trainer.errors import UserError
from trainer.evaluating.results import evaluation_of
from trainer.files import atomic_path
from trainer.runs.store import Run, Workspace
from ui.context import AppContext

THUMBNAIL_PX = 256
_PICTURE_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,120}\.(png|jpg)")
_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


def evaluation_url(workspace: Workspace, run_id: str, name: str) -> str:
    """Where a picture of a run's evaluation is served; ``&thumbnail`` behind it asks for a small one."""
    path = evaluation_of(workspace.runs_dir / run_id).pictures / name
    return _url(f"/atelier/runs/{quote(run_id)}/evaluation/{quote(name)}", path, small=False)


def picture_url(workspace: Workspace, path: Path, *, thumbnail: bool = False) -> str:
    """Where a picture of the Generate tab, or a live preview, is served."""
    kind = "previews" if path.parent == _previews(workspace) else "pictures"
    return _url(f"/atelier/{kind}/{quote(path.name)}", path, thumbnail)


def live_url(path: Path) -> str:
    """Where the picture that is being drawn is served, ``trainer.studio.Answer.live``: another address each time."""
    return _url(f"/atelier/live/{quote(path.name)}", path, small=False)


def lora_url(run_id: str) -> str:
    """Where a run's finished LoRA can be downloaded."""
    return f"/atelier/runs/{quote(run_id)}/lora"


def checkpoint_url(run_id: str, step: int) -> str:
    """Where the LoRA of a checkpoint can be downloaded."""
    return f"/atelier/runs/{quote(run_id)}/checkpoints/{step}/lora"


def log_url(run_id: str) -> str:
    """Where a run's log can be downloaded."""
    return f"/atelier/runs/{quote(run_id)}/log"


def add_routes(context: AppContext) -> None:
    """Serve the pictures and finished LoRAs of this workspace."""
    workspace = context.workspace

    def sample(request: Request) -> Response:
        return picture_answer(workspace, sample_file(workspace, request), request)

    def live(request: Request) -> Response:
        return _live_picture(workspace.dir / "studio" / "live", request)

    def lora(request: Request) -> Response:
        path = found_run(workspace, request.path_params["run_id"]).output_path
        return _download(path, path.name)

    def checkpoint_lora(request: Request) -> Response:
        run, step = found_run(workspace, request.path_params["run_id"]), request.path_params["step"]
        return _download(checkpoint_at(run.checkpoints_dir, step) / LORA, f"{run.read().name}-{step:06d}.safetensors")

    def log(request: Request) -> Response:
        run = found_run(workspace, request.path_params["run_id"])
        return _download(run.log_path, f"{run.read().name}.log")

    def evaluated(request: Request) -> Response:
        folder = evaluation_of(found_run(workspace, request.path_params["run_id"]).dir).pictures
        return _picture(workspace, folder, request)

    context.page.route("/atelier/runs/{run_id}/samples/{name}", sample)
    context.page.route("/atelier/runs/{run_id}/evaluation/{name}", evaluated)
    context.page.route("/atelier/runs/{run_id}/lora", lora)
    context.page.route("/atelier/runs/{run_id}/checkpoints/{step:int}/lora", checkpoint_lora)
    context.page.route("/atelier/runs/{run_id}/log", log)
    context.page.route("/atelier/pictures/{name}", lambda request: _picture(workspace, workspace.pictures_dir, request))
    context.page.route("/atelier/live/{name}", live)
    context.page.route("/atelier/previews/{name}", lambda request: _picture(workspace, _previews(workspace), request))


def found_run(workspace: Workspace, run_id: str) -> Run:
    """The run that an address names. Raises HTTPException 404."""
    try:
        return workspace.run(run_id)
    except UserError as error:
        raise HTTPException(404) from error


def sample_file(workspace: Workspace, request: Request) -> Path:
    """The preview picture that an address names. Raises HTTPException 404."""
    return picture_file(found_run(workspace, request.path_params["run_id"]).samples_dir, request)


def picture_file(folder: Path, request: Request) -> Path:
    """The picture of a folder that an address names. Raises HTTPException 404."""
    name = request.path_params["name"]
    path = folder / name
    if not _PICTURE_NAME.fullmatch(name) or path.is_symlink() or not path.is_file():
        raise HTTPException(404)
    return path


def _picture(workspace: Workspace, folder: Path, request: Request) -> Response:
    return picture_answer(workspace, picture_file(folder, request), request)


def _live_picture(folder: Path, request: Request) -> Response:
    """A picture as it stands now; the file is another one in a moment, and gone when the picture is done."""
    try:
        data = picture_file(folder, request).read_bytes()
    except FileNotFoundError as error:
        raise HTTPException(404) from error
    return Response(data, media_type="image/jpeg", headers={"cache-control": "no-store"})


def picture_answer(workspace: Workspace, path: Path, request: Request) -> Response:
    """A picture, or a small version of it where the address asks for one. Raises HTTPException 404 for a broken one."""
    if "thumbnail" in request.query_params:
        try:
            path = thumbnail(workspace, path)
        except PICTURE_ERRORS as error:
            raise HTTPException(404) from error
    return FileResponse(path, headers=_FOREVER)  # the address holds the file's time: a new file has a new one


def thumbnail(workspace: Workspace, path: Path) -> Path:
    """A small WebP of a picture, kept in the cache; the picture itself where it is small already.

    Raises one of PICTURE_ERRORS.
    """
    stamp = path.stat().st_mtime_ns  # before it is opened: another picture may take its place meanwhile
    with open_picture(path) as image:
        if max(image.size) <= THUMBNAIL_PX:
            return path
        key = hashlib.sha256(f"{path}|{stamp}".encode()).hexdigest()[:32]
        small = workspace.cache_dir / "thumbnails" / f"{key}.webp"
        if not small.exists():
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            with atomic_path(small) as temporary:
                image.convert("RGB").save(temporary, format="WEBP", quality=80)
    return small


def _previews(workspace: Workspace) -> Path:
    return workspace.dir / "studio" / "previews"


def _url(address: str, path: Path, small: bool) -> str:
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        stamp = 0
    return f"{address}?v={stamp}" + ("&thumbnail" if small else "")


def _download(path: Path, name: str) -> Response:
    if not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, filename=name, media_type="application/octet-stream")
