"""How large pictures are, read once and kept in the workspace's cache. No Gradio."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data.image_files import PICTURE_ERRORS, read_size
from trainer.files import read_json, write_text
from trainer.outward_links import leads_out
from ui.dataset.library import Entry, Listing
from ui.dataset.scan import Roots, Stamp

LOG = logging.getLogger("lora_atelier")

Size = tuple[int, int]
"""Width and height in pixels as the picture is shown; (0, 0) for one that cannot be read."""

_UNREADABLE: Size = (0, 0)
_VERSION = 1
_SAVE_EVERY_SECONDS = 10.0
_KEPT_FOLDERS = 8


@dataclass
class _Folder:
    """The sizes of one folder's pictures by name, each with the stamp of the file it was read from.

    ``whole`` holds the sizes of a listing of which all are known.
    """

    file: Path
    read: dict[str, tuple[Stamp, Size]] = field(default_factory=dict)
    whole: tuple[Listing, dict[str, Size]] | None = None
    reader: threading.Thread | None = None


class PictureSizes:
    """Sizes of the pictures of folders. Those not known yet are read in the background, so nobody waits for them.

    Args:
        cache_dir: holds one file for each folder of pictures; one that cannot be read is made anew.
        roots: the folders that the page may read; a file may have become a link that leads out of them.
    """

    def __init__(self, cache_dir: Path, roots: Roots) -> None:
        self._cache_dir = cache_dir
        self._roots = roots
        self._folders: dict[Path, _Folder] = {}
        self._lock = threading.Lock()

    def known(self, listing: Listing) -> dict[str, Size]:
        """The sizes known so far. Where some are missing, reading them goes on in the background."""
        folder = self._folder(listing.folder)
        if folder.whole is not None and folder.whole[0] is listing:
            return folder.whole[1]
        sizes = {entry.name: size for entry in listing.entries if (size := _current(folder, entry)) is not None}
        if len(sizes) == len(listing.entries):
            folder.whole = (listing, sizes)
        else:
            self._start(folder, listing)
        return sizes

    def of(self, folder: Path, entries: Iterable[Entry]) -> dict[str, Size]:
        """The sizes of a few pictures, read now where they are not known."""
        kept = self._folder(folder)
        roots = self._roots()
        return {entry.name: _current(kept, entry) or _look(kept, entry, roots) for entry in entries}

    def wait(self, folder: Path) -> None:
        """Until the background has read what it was asked for."""
        reader = self._folder(folder).reader
        if reader is not None:
            reader.join()

    def _folder(self, folder: Path) -> _Folder:
        with self._lock:
            if folder not in self._folders:
                while len(self._folders) >= _KEPT_FOLDERS:
                    self._folders.pop(next(iter(self._folders)))
                digest = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:24]
                file = self._cache_dir / f"{digest}.json"
                self._folders[folder] = _Folder(file, _read(file))
            return self._folders[folder]

    def _start(self, folder: _Folder, listing: Listing) -> None:
        with self._lock:
            if folder.reader is None or not folder.reader.is_alive():
                folder.reader = threading.Thread(target=self._fill, args=(folder, listing), name="sizes", daemon=True)
                folder.reader.start()

    def _fill(self, folder: _Folder, listing: Listing) -> None:
        """Read what is missing. Pictures that are gone are forgotten at the end."""
        saved, roots = time.monotonic(), self._roots()
        for entry in listing.entries:
            if _current(folder, entry) is None:
                _look(folder, entry, roots)
            if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                _save(folder)
                saved = time.monotonic()
        for gone in set(folder.read) - listing.by_name.keys():
            folder.read.pop(gone, None)
        _save(folder)


def _current(folder: _Folder, entry: Entry) -> Size | None:
    known = folder.read.get(entry.name)
    return known[1] if known is not None and known[0] == entry.stamp else None


def _look(folder: _Folder, entry: Entry, roots: Sequence[Path]) -> Size:
    try:
        size = _UNREADABLE if leads_out(entry.path, roots) else read_size(entry.path)
    except PICTURE_ERRORS:
        size = _UNREADABLE
    folder.read[entry.name] = (entry.stamp, size)
    return size


def _save(folder: _Folder) -> None:
    pictures = {name: [*stamp, *size] for name, (stamp, size) in list(folder.read.items())}
    try:
        write_text(folder.file, json.dumps({"version": _VERSION, "pictures": pictures}))
    except OSError as error:  # a full disk: sizes are read again next time
        LOG.warning("sizes of pictures could not be kept in %s: %s", folder.file, error)


def _read(file: Path) -> dict[str, tuple[Stamp, Size]]:
    try:
        kept = read_json(file)
        if kept["version"] != _VERSION:
            return {}
        return {name: _entry(values) for name, values in kept["pictures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _entry(values: Any) -> tuple[Stamp, Size]:
    modified_ns, in_bytes, width, height = map(int, values)
    return (modified_ns, in_bytes), (width, height)
