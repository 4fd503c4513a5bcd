"""Pictures for the page: small versions from a cache, named by number. The page never says a path.

A token stands for a list of pictures that the server made; ``/atelier/thumb/TOKEN/7`` is the eighth of that list.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from trainer.data.image_files import PICTURE_ERRORS, read_preview
from trainer.files import write_bytes
from ui.page import Page

THUMB_PX = 256
VIEW_PX = 1280
QUALITY = 80
_KEPT_LISTS = 32
_DECODERS = 3
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # addresses change with the file


class Thumbnails:
    """Lists of pictures by token, and their small versions in a cache folder keyed by path, time and size."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._lists: OrderedDict[str, tuple[Path, ...]] = OrderedDict()
        self._lock = threading.Lock()
        self._decoders = threading.BoundedSemaphore(_DECODERS)  # a page asks for dozens at once; each may be large

    def add_routes(self, page: Page) -> None:
        """Serve ``/atelier/thumb`` and ``/atelier/picture``."""
        page.route("/atelier/thumb/{token:str}/{index:int}", lambda request: self._serve(request, THUMB_PX))
        page.route("/atelier/picture/{token:str}/{index:int}", lambda request: self._serve(request, VIEW_PX))

    def register(self, paths: Sequence[Path]) -> str:
        """The token of this list; the same list has the same token."""
        token = hashlib.sha256("\0".join(map(str, paths)).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        with self._lock:
            self._lists[token] = tuple(paths)
            self._lists.move_to_end(token)
            while len(self._lists) > _KEPT_LISTS:
                self._lists.popitem(last=False)
        return token

    def address(self, kind: str, token: str, index: int, path: Path) -> str:
        """Where the page finds the picture: ``kind`` is ``thumb`` or ``picture``. It changes when the file does."""
        try:
            version = path.stat().st_mtime_ns
        except OSError:
            version = 0
        return f"/atelier/{kind}/{token}/{index}?v={version:x}"

    def small(self, path: Path, side_px: int) -> bytes:
        """The picture as WebP, at most ``side_px`` wide and high. Raises one of PICTURE_ERRORS."""
        status = path.stat()
        key = f"{path}\0{status.st_mtime_ns}\0{status.st_size}\0{side_px}".encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(key).hexdigest()
        cached = self._cache_dir / digest[:2] / f"{digest}.webp"
        try:
            return cached.read_bytes()
        except FileNotFoundError:
            pass
        with self._decoders:
            data = _webp(path, side_px)
        write_bytes(cached, data)
        return data

    def _serve(self, request: Request, side_px: int) -> Response:
        paths = self._lists.get(request.path_params["token"], ())
        index = request.path_params["index"]
        if not 0 <= index < len(paths):
            return Response("There is no such picture.", 404, media_type="text/plain")
        try:
            data = self.small(paths[index], side_px)
        except PICTURE_ERRORS:
            return Response("This picture cannot be shown.", 404, media_type="text/plain")
        return Response(data, media_type="image/webp", headers=_FOREVER)


def _webp(path: Path, side_px: int) -> bytes:
    out = io.BytesIO()
    read_preview(path, side_px).save(out, "WEBP", quality=QUALITY, method=2)
    return out.getvalue()
