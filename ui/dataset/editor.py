"""The editor of one picture: its caption, crop box and mask, and the picture in full size."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import Response

from trainer.curation.cropping import crop_in_place
from trainer.curation.crops import Box, write_crop
from trainer.curation.mask_files import keep_mask, mask_name, painted_mask
from trainer.curation.steps import HIDDEN, Step, set_aside
from trainer.data.image_files import PICTURE_ERRORS, read_preview, read_size, why_unreadable
from trainer.errors import UserError
from ui.context import AppContext
from ui.dataset.board import IN_ORDER, Board, sent, tell
from ui.dataset.desk import DatasetDesk, Shown, View
from ui.messages import as_text, tells_problems, warn
from ui.wiring import EVERY_TIME, TELLING

FULL_PX = 4096
"""Longest side of a picture looked at closely."""
_QUALITY = 92


def wire(context: AppContext, desk: DatasetDesk, board: Board) -> None:
    """Wire what the editor's scripts send."""

    @tells_problems
    def save(view: View, event: gr.EventData) -> list[Any]:
        change = sent(event, "folder", "name", "before", "text", "asked")
        if not isinstance(change["text"], str) or not isinstance(change["before"], str | None):
            raise UserError("dataset.caption", "The caption is not text.", "Reload the page.")
        view = {**view, "folder": change["folder"], "asked": change["asked"]}  # by now another may be open
        return board.updates(desk.save(view, str(change["name"]), change["before"], change["text"]))

    @tells_problems
    def unsaved(event: gr.EventData) -> None:
        lost = sent(event, "name", "text")
        warn(f"The caption of {lost['name']} was changed elsewhere meanwhile and left alone. You typed: {lost['text']}")

    def doing(act: Callable[[DatasetDesk, View, dict[str, Any]], Shown], *names: str) -> Callable[..., list[Any]]:
        @tells_problems
        def do(view: View, event: gr.EventData) -> list[Any]:
            asked = sent(event, "name", "asked", *names)
            view = {**view, "asked": asked["asked"]}
            try:
                shown = act(desk, view, asked)
            except UserError as error:
                shown = _with(desk.refresh(view), refused={"name": asked["name"], "problem": as_text(error)})
            return board.updates(shown)

        return do

    board.grid.save(save, board.grid, board.outputs, **IN_ORDER)
    board.grid.unsaved(unsaved, None, None, **TELLING, **EVERY_TIME)
    board.grid.mask(doing(save_mask, "png"), board.grid, board.outputs, **IN_ORDER)
    board.grid.unmask(doing(remove_mask), board.grid, board.outputs, **IN_ORDER)
    board.grid.crop(doing(keep_crop, "box"), board.grid, board.outputs, **IN_ORDER)
    board.grid.cut(doing(cut_picture, "box"), board.grid, board.outputs, **IN_ORDER)
    context.page.route("/atelier/full", lambda request: full_picture(desk, request))


def save_mask(desk: DatasetDesk, view: View, asked: dict[str, Any]) -> Shown:
    """Keep what was painted as the picture's mask. Raises UserError when it is not a mask of this picture."""
    folder = desk.folder(view)
    entry = desk.entry(folder, str(asked["name"]))
    _refuse_links_out(desk, folder, mask_name(entry.name))
    mask = painted_mask(str(asked["png"]), *_size(desk, view, entry.name))
    return _apply(desk, view, f"mask of {entry.name}", [keep_mask(folder, entry.name, mask)], entry.name)


def remove_mask(desk: DatasetDesk, view: View, asked: dict[str, Any]) -> Shown:
    """Take a picture's mask out of the dataset."""
    folder = desk.folder(view)
    name = desk.entry(folder, str(asked["name"])).name
    _refuse_links_out(desk, folder, mask_name(name))
    return _apply(desk, view, f"no mask for {name}", set_aside([mask_name(name)]), name)


def keep_crop(desk: DatasetDesk, view: View, asked: dict[str, Any]) -> Shown:
    """Keep a crop box drawn by hand, or forget it. The picture stays as it is."""
    folder = desk.folder(view)
    name = desk.entry(folder, str(asked["name"])).name
    write_crop(desk.workspace, folder, name, None if asked["box"] is None else _box(asked["box"]))
    return _with(desk.refresh(view), done=name)


def cut_picture(desk: DatasetDesk, view: View, asked: dict[str, Any]) -> Shown:
    """Crop the picture itself, and its mask; Undo brings both back."""
    folder = desk.folder(view)
    desk.refuse_while_busy(folder)
    name = desk.entry(folder, str(asked["name"])).name
    _refuse_links_out(desk, folder, name, mask_name(name))
    shown = _apply(desk, view, f"crop of {name}", crop_in_place(folder, name, _box(asked["box"])), name)
    write_crop(desk.workspace, folder, name, None)
    return shown


def full_picture(desk: DatasetDesk, request: Request) -> Response:
    """A picture upright and as large as it is, up to FULL_PX."""
    try:
        folder = desk.folder({"folder": request.query_params.get("folder", "")})
        entry = desk.entry(folder, request.query_params.get("name", ""))
        out = io.BytesIO()
        read_preview(entry.path, FULL_PX).save(out, "WEBP", quality=_QUALITY, method=1)
    except (UserError, *PICTURE_ERRORS):
        return Response("This picture cannot be shown.", 404, media_type="text/plain")
    return Response(out.getvalue(), media_type="image/webp", headers={"Cache-Control": "private, max-age=600"})


def _refuse_links_out(desk: DatasetDesk, folder: Path, *names: str) -> None:
    """Raise UserError where a link would have files read or written that are not open to the page."""
    for name in (*names, f"{HIDDEN}/new", f"{HIDDEN}/aside"):
        desk.context.allowed(folder / name)


def _apply(desk: DatasetDesk, view: View, title: str, steps: Sequence[Step], name: str) -> Shown:
    shown, outcome = desk.apply(view, title, steps)
    if outcome.conflicts or outcome.failed:
        tell("Changed", outcome)
        return _with(shown, refused={"name": name, "problem": "It was left alone."})
    return _with(shown, done=name)


def _with(shown: Shown, **told: Any) -> Shown:
    """The same, with what became of a request for the scripts: ``done`` or ``refused``."""
    return replace(shown, view={**shown.view, **told})


def _size(desk: DatasetDesk, view: View, name: str) -> tuple[int, int]:
    try:
        return read_size(desk.entry(desk.folder(view), name).path)
    except PICTURE_ERRORS as error:
        message = f"{name} cannot have a mask: {why_unreadable(error)}."
        raise UserError("mask.picture", message, "Check the pictures first.") from error


def _box(sides: Any) -> Box:
    """A box as the browser sent it. Raises UserError for anything else."""
    try:
        return Box(*map(float, sides))
    except (TypeError, ValueError) as error:
        raise UserError("crop.box", f"{sides!r} is not a box.", "Reload the page and draw it again.", "crop") from error
