"""All pictures that were drawn: the wall with search and favourites, and the bin of deleted ones."""

from __future__ import annotations

import json
import secrets
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from trainer.errors import UserError
from trainer.files import atomic_path
from trainer.runs.bin import Bin
from ui.context import AppContext
from ui.dataset.board import sent
from ui.generate.album import Album
from ui.generate.cards import cards
from ui.messages import tells_problems
from ui.runs.trash import listed, tell_freed
from ui.scripted import kept, scripted
from ui.wiring import EVERY_TIME, IN_TURN, TELLING

MOST_PER_PAGE = 200
_ZIPS_LIVE_S = 3600


class History:
    """The wall of pictures and the bin beneath it.

    Attributes:
        panel: the wall; its event ``pick`` names a picture and what it is wanted for.
    """

    def __init__(self, context: AppContext, album: Album) -> None:
        self._context = context
        self._album = album
        self._bin = Bin(context.workspace.dir)
        self.panel = scripted(
            "generate-history",
            css=("generate/history",),
            js=("dataset/dom", "generate/viewer", "generate/history"),
            asks=[self._asked()],
        )
        self._rubbish = scripted("generate-bin", css=("runs/panel",), js=("dataset/dom", "runs/bin"))
        self._seen = kept()
        self._outputs = [self._seen, self.panel, self._rubbish]
        context.page.poll(self._poll, [self._seen], self._outputs)
        context.page.route("/atelier/zips/{name}", self._zip_file)
        self._wire()

    def _wire(self) -> None:
        for event, act in (
            (self.panel.star, self._star),
            (self.panel.discard, self._discard),
            (self.panel.undo, self._restore),
            (self._rubbish.restore, self._restore),
            (self._rubbish.remove, self._remove),
        ):
            event(act, None, self._outputs, **IN_TURN, **EVERY_TIME)
        self.panel.zip(self._zip, None, self._outputs, **TELLING)
        self._rubbish.empty(self._empty, None, self._outputs, **TELLING)

    def _asked(self) -> Any:
        def pictures(asked: Any) -> dict[str, str]:
            """A page of pictures, as one JSON text: a list would be observed entry by entry in the browser."""
            return {"page": json.dumps(self._page(asked if isinstance(asked, dict) else {}))}

        return pictures

    def _page(self, asked: dict[str, Any]) -> dict[str, Any]:
        first, count = (int(asked.get(name) or 0) for name in ("first", "count"))
        text, only = str(asked.get("text") or ""), bool(asked.get("favourites"))
        page = self._album.page(text, favourites=only, first=first, count=min(max(count, 1), MOST_PER_PAGE))
        return {
            "cards": cards(self._album, self._context.workspace, page.pictures),
            "first": page.first,
            "found": page.found,
            "total": page.total,
            "favourites": page.favourites,
            "unread": page.unread,
        }

    def _poll(self, seen: str) -> list[Any] | None:
        now = self._album.look()
        return None if now == seen else self._shown(now)

    def _shown(self, now: str, **news: Any) -> list[Any]:
        return [now, {"version": now, **news}, listed(self._bin.items("pictures"))]

    @tells_problems
    def _star(self, event: gr.EventData) -> list[Any]:
        asked = sent(event, "names", "on")
        self._album.star(_names(asked), bool(asked["on"]))
        return self._shown(self._album.look())

    @tells_problems
    def _discard(self, event: gr.EventData) -> list[Any]:
        item = self._album.throw_away(_names(sent(event, "names")))
        return self._shown(self._album.look(), discarded={"id": item.id, "title": item.title})

    @tells_problems
    def _restore(self, event: gr.EventData) -> list[Any]:
        self._bin.restore(str(sent(event, "id")["id"]))
        return self._shown(self._album.look())

    @tells_problems
    def _remove(self, event: gr.EventData) -> list[Any]:
        return self._freed(self._bin.remove(str(sent(event, "id")["id"])))

    @tells_problems
    def _empty(self) -> list[Any]:
        return self._freed(self._bin.empty("pictures"))

    def _freed(self, freed_bytes: int) -> list[Any]:
        tell_freed(freed_bytes)
        return self._shown(self._album.look())

    @tells_problems
    def _zip(self, event: gr.EventData) -> list[Any]:
        pictures = self._album.paths(_names(sent(event, "names")))
        name = f"pictures-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}.zip"
        _clear_old(self._zips())
        with atomic_path(self._zips() / name) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for path in pictures:
                archive.write(path, path.name)  # stored as they are: a PNG is compressed already
        return self._shown(self._album.look(), zip=f"/atelier/zips/{name}")

    def _zips(self) -> Path:
        return self._context.workspace.cache_dir / "zips"

    def _zip_file(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = self._zips() / name
        if Path(name).name != name or path.suffix != ".zip" or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, filename=name, media_type="application/zip")


def _names(asked: dict[str, Any]) -> list[str]:
    names = asked["names"]
    if not isinstance(names, list):
        raise UserError("picture.none", "No picture is selected.", "Select some.")
    return [str(name) for name in names]


def _clear_old(folder: Path) -> None:
    for path in folder.glob("*.zip"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ZIPS_LIVE_S:
                path.unlink()
