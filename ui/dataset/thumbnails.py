"""Pictures for the page: small versions from a cache, named by number. The page never says a path.

A token stands for a list of pictures that the server made; ``/atelier/thumb/TOKEN/7`` is the eighth of that list.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from trainer.data.image_files import PICTURE_ERRORS, read_preview
from trainer.files import write_bytes
from trainer.outward_links import leads_out
from ui.dataset.scan import Roots
from ui.page import Page

LOG = logging.getLogger("lora_atelier")

THUMB_PX = 256
VIEW_PX = 1280
QUALITY = 80
LIMIT_BYTES = 2 * 10**9
"""About 100,000 thumbnails with some thousands of larger views."""

_KEPT_LISTS = 32
_DECODERS = 3
_CHECK_EVERY = 500
_USED_AGAIN_SECONDS = 3600
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # addresses change with the file


class Thumbnails:
    """Lists of pictures by token, and their small versions in a cache folder keyed by path, time and size.

    Args:
        cache_dir: holds the small versions; those not used for longest are deleted at ``limit_bytes``.
        roots: the folders that the page may read; a file may have become a link that leads out of them.
        limit_bytes: how large the cache may become.
    """

    def __init__(self, cache_dir: Path, roots: Roots, limit_bytes: int = LIMIT_BYTES) -> None:
        self._cache_dir = cache_dir
        self._roots = roots
        self._limit_bytes = limit_bytes
        self._lists: OrderedDict[str, tuple[Path, tuple[str, ...]]] = OrderedDict()
        self._unchecked = _CHECK_EVERY
        self._wanted: deque[Path] = deque()
        self._lock = threading.Lock()
        self._maker: threading.Thread | None = None
        self._decoders = threading.BoundedSemaphore(_DECODERS)  # a page asks for dozens at once; each may be large

    def add_routes(self, page: Page) -> None:
        """Serve ``/atelier/thumb`` and ``/atelier/picture``."""
        page.route("/atelier/thumb/{token:str}/{index:int}", lambda request: self._serve(request, THUMB_PX))
        page.route("/atelier/picture/{token:str}/{index:int}", lambda request: self._serve(request, VIEW_PX))

    def register(self, folder: Path, names: Sequence[str]) -> str:
        """The token of pictures named relative to a folder; the same list has the same token."""
        about = "\0".join([str(folder), *names])
        token = hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()[:24]
        with self._lock:
            self._lists[token] = (folder, tuple(names))
            self._lists.move_to_end(token)
            while len(self._lists) > _KEPT_LISTS:
                self._lists.popitem(last=False)
        return token

    def address(self, kind: str, token: str, index: int, modified_ns: int) -> str:
        """Where the page finds the picture: ``kind`` is ``thumb`` or ``picture``. It changes when the file does."""
        return f"/atelier/{kind}/{token}/{index}?v={modified_ns:x}"

    def small(self, path: Path, side_px: int) -> bytes:
        """The picture as WebP, at most ``side_px`` wide and high.

        Raises one of PICTURE_ERRORS; PermissionError, which is one, where the path leads out of reach.
        """
        if leads_out(path, self._roots()):
            raise PermissionError(f"{path} is not open to the page")
        status = path.stat()
        key = f"{path}\0{status.st_mtime_ns}\0{status.st_size}\0{side_px}".encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(key).hexdigest()
        cached = self._cache_dir / digest[:2] / f"{digest}.webp"
        try:
            data = cached.read_bytes()
        except FileNotFoundError:
            return self._make(path, side_px, cached)
        _note_use(cached)
        return data

    def prepare(self, paths: Iterable[Path]) -> None:
        """Make thumbnails in the background, as they will be asked for next; what was wanted before is dropped."""
        with self._lock:
            self._wanted = deque(paths)
            if self._wanted and (self._maker is None or not self._maker.is_alive()):
                self._maker = threading.Thread(target=self._make_wanted, name="thumbnails", daemon=True)
                self._maker.start()

    def _make_wanted(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._maker = None
                    return
                path = self._wanted.popleft()
            try:
                self.small(path, THUMB_PX)
            except PICTURE_ERRORS:
                continue  # the page shows that it is broken

    def _make(self, path: Path, side_px: int, cached: Path) -> bytes:
        with self._decoders:
            data = _webp(path, side_px)
        try:
            write_bytes(cached, data)
        except OSError as error:  # a full disk: shown all the same
            LOG.warning("a thumbnail could not be kept in %s: %s", cached, error)
        with self._lock:
            self._unchecked += 1
            due = self._unchecked > _CHECK_EVERY
            self._unchecked = 0 if due else self._unchecked
        if due:
            threading.Thread(target=limit_cache, args=(self._cache_dir, self._limit_bytes), daemon=True).start()
        return data

    def _serve(self, request: Request, side_px: int) -> Response:
        folder, names = self._lists.get(request.path_params["token"], (Path(), ()))
        index = request.path_params["index"]
        if not 0 <= index < len(names):
            return Response("There is no such picture.", 404, media_type="text/plain")
        try:
            data = self.small(folder / names[index], side_px)
        except PICTURE_ERRORS:
            return Response("This picture cannot be shown.", 404, media_type="text/plain")
        return Response(data, media_type="image/webp", headers=_FOREVER)


def limit_cache(folder: Path, limit_bytes: int) -> None:
    """Delete the files not used for longest until a tenth of the limit is free; nothing below the limit."""
    files = []
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = Path(parent, name).stat()
            except OSError:  # deleted meanwhile
                continue
            files.append((status.st_mtime, status.st_size, Path(parent, name)))
    total = sum(size for _, size, _ in files)
    if total <= limit_bytes:
        return
    for _, size, path in sorted(files):
        if total <= limit_bytes * 9 // 10:
            return
        path.unlink(missing_ok=True)
        total -= size


def _note_use(cached: Path) -> None:
    """Have the file's time say when it was last used; not each time, which would be a write for every look."""
    try:
        if time.time() - cached.stat().st_mtime > _USED_AGAIN_SECONDS:
            os.utime(cached)
    except OSError:  # deleted meanwhile
        return


def _webp(path: Path, side_px: int) -> bytes:
    out = io.BytesIO()
    read_preview(path, side_px).save(out, "WEBP", quality=QUALITY, method=2)
    return out.getvalue()
