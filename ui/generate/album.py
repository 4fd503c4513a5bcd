"""The workspace's pictures: what each was made with, searched, favourites, deleted and brought back. No gradio in here.

::

    WORKSPACE/pictures/*.png         the pictures, with their settings inside
    WORKSPACE/cache/pictures.jsonl   what was read of them once, a line each; may be deleted
    WORKSPACE/favourites.json        {name: when that file was written}
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trainer.errors import UserError
from trainer.files import end_torn_line, read_json, write_json, write_text
from trainer.pictures import read_settings
from trainer.runs.bin import Bin, BinItem
from trainer.runs.store import Workspace
from trainer.sampler_names import SAMPLER_NAMES

READ_AT_ONCE_S = 0.4
"""How long one look reads pictures that are new to the index, at most: the rest is left for the next look."""
_SETTLED_NS = 100_000_000
"""A folder that changed less than this ago may change again without its time telling so."""
_SPARE_LINES = 500
_FILE = re.compile(r"[A-Za-z0-9][\w.-]{0,120}\.png")


class Picture(NamedTuple):
    """One picture.

    Attributes:
        name: of its file.
        stamp: when it was written, in nanoseconds.
        settings: those of PictureSettings that it carries; empty where it carries none.
        words: what a search looks through, in lower case.
    """

    name: str
    stamp: int
    settings: dict[str, Any]
    words: str


@dataclass(frozen=True)
class Page:
    """What a search found.

    Attributes:
        pictures: of this page, newest first.
        first: place of the first among those found.
        found: pictures that match, on all pages.
        total: pictures in the workspace.
        favourites: of them.
        unread: pictures that the search does not know yet.
    """

    pictures: list[Picture]
    first: int
    found: int
    total: int
    favourites: int
    unread: int


class Album:
    """Looks at the folder when it has changed, and reads each picture once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._index = workspace.cache_dir / "pictures.jsonl"
        self._stars_file = workspace.dir / "favourites.json"
        self._bin = Bin(workspace.dir)
        self._lock = threading.RLock()
        self._known: dict[tuple[str, int], Picture] | None = None
        self._seen_ns = -1
        self._pictures: list[Picture] = []
        self._unread: list[tuple[str, int]] = []

    @property
    def dir(self) -> Path:
        """Where the pictures lie."""
        return self._workspace.pictures_dir

    def look(self) -> str:
        """Take in what has changed on the disk. The answer differs whenever what the album holds does."""
        with self._lock:
            stamp = _stamp(self.dir)
            if stamp != self._seen_ns or self._unread:
                self._take_in()
                self._seen_ns = stamp if time.time_ns() - stamp > _SETTLED_NS else -1
            newest = self._pictures[0].stamp if self._pictures else 0
            counts = f"{len(self._pictures)}-{len(self._unread)}-{newest}"
            return f"{counts}-{stamp}-{_stamp(self._stars_file)}-{_stamp(self._bin.dir)}"

    def page(self, text: str = "", *, favourites: bool = False, first: int = 0, count: int = 60) -> Page:
        """The pictures that have every word of ``text`` among their settings, from the ``first`` on."""
        self.look()
        stars = self._stars()
        wanted = text.lower().split()
        with self._lock:
            pictures, unread = self._pictures, len(self._unread)
        starred = [picture for picture in pictures if stars.get(picture.name) == picture.stamp]
        among = starred if favourites else pictures
        found = [picture for picture in among if all(word in picture.words for word in wanted)]
        first = max(0, min(first, (len(found) - 1) // count * count))
        total = len(pictures) + unread
        return Page(found[first : first + count], first, len(found), total, len(starred), unread)

    def picture(self, name: str) -> Picture:
        """One picture by its name. Raises UserError when there is none."""
        path = self._path(name)
        with self._lock:
            return self._read(name, path.stat().st_mtime_ns)

    def starred(self, pictures: Sequence[Picture]) -> set[str]:
        """The names of those among the pictures that are favourites."""
        stars = self._stars()
        return {picture.name for picture in pictures if stars.get(picture.name) == picture.stamp}

    def star(self, names: Sequence[str], on: bool) -> None:
        """Make pictures favourites, or not any more. Raises UserError when one is not there."""
        stamps = {name: self._path(name).stat().st_mtime_ns for name in names}
        with self._workspace.lock("favourites"):  # another app may show the same pictures
            others = {name: stamp for name, stamp in self._stars().items() if name not in stamps}
            write_json(self._stars_file, {**others, **(stamps if on else {})})

    def throw_away(self, names: Sequence[str]) -> BinItem:
        """Move pictures to the bin, as one item. Raises UserError when one is not there."""
        paths = [self._path(name) for name in names]
        if not paths:
            raise UserError("picture.none", "No picture is selected.", "Select those to delete.")
        return self._bin.put_pictures(paths, paths[0].name if len(paths) == 1 else f"{len(paths)} pictures")

    def paths(self, names: Sequence[str]) -> list[Path]:
        """The files of these pictures. Raises UserError when one is not there."""
        return [self._path(name) for name in names]

    def _path(self, name: str) -> Path:
        path = self.dir / name
        if not _FILE.fullmatch(name) or path.is_symlink() or not path.is_file():
            raise UserError("picture.unknown", f"There is no picture {name}.", "It may have been deleted.")
        return path

    def _take_in(self) -> None:
        """List the folder, newest first, and read for a while what the index does not have."""
        files = sorted(_files(self.dir), key=lambda file: (file[1], file[0]), reverse=True)
        known = self._read_index()
        end = time.monotonic() + READ_AT_ONCE_S
        unread, fresh = [], []
        for name, stamp in files:
            if (name, stamp) in known:
                continue
            if time.monotonic() > end:
                unread.append((name, stamp))
                continue
            with suppress(OSError):
                fresh.append(self._read(name, stamp))
        self._note(fresh)
        self._pictures = [known[file] for file in files if file in known]
        self._unread = unread

    def _read(self, name: str, stamp: int) -> Picture:
        known = self._read_index()
        if (name, stamp) not in known:
            known[name, stamp] = _picture(name, stamp, _settings(self.dir / name))
        return known[name, stamp]

    def _read_index(self) -> dict[tuple[str, int], Picture]:
        if self._known is None:
            self._known = {}
            lines = 0
            for picture in _lines(self._index):
                lines += 1
                self._known[picture.name, picture.stamp] = picture
            if lines > 2 * len(self._known) + _SPARE_LINES:
                write_text(self._index, "".join(map(_line, self._known.values())))
        return self._known

    def _note(self, fresh: Sequence[Picture]) -> None:
        if fresh:
            self._index.parent.mkdir(parents=True, exist_ok=True)
            end_torn_line(self._index)
            with self._index.open("a", encoding="utf-8") as file:
                file.writelines(map(_line, fresh))

    def _stars(self) -> dict[str, int]:
        try:
            stars = read_json(self._stars_file)
        except (OSError, ValueError):
            return {}
        return stars if isinstance(stars, dict) else {}


def _files(folder: Path) -> list[tuple[str, int]]:
    found = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if _FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    found.append((entry.name, entry.stat().st_mtime_ns))
    return found


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _settings(path: Path) -> dict[str, Any]:
    try:
        return read_settings(path)
    except UserError:
        return {}  # a picture of something else: it is shown all the same


def _picture(name: str, stamp: int, settings: dict[str, Any]) -> Picture:
    """A picture with the words it is found by: texts, names of LoRAs, model and sampler, ``512x768``, the seed."""
    words = [name, settings.get("prompt", ""), settings.get("negative", ""), Path(str(settings.get("model", ""))).name]
    words += [Path(use["path"]).stem for use in settings.get("loras", [])]
    sampler = settings.get("sampler", "")
    words += [sampler, SAMPLER_NAMES.get(sampler, ""), str(settings.get("schedule", ""))]
    words += [f"{settings.get('width', '')}x{settings.get('height', '')}", str(settings.get("seed", ""))]
    return Picture(name, stamp, settings, "\n".join(words).lower())


def _line(picture: Picture) -> str:
    return json.dumps([picture.name, picture.stamp, picture.settings]) + "\n"


def _lines(index: Path) -> list[Picture]:
    """What was noted; a line that cannot be read is passed over: its picture is read again."""
    found = []
    with suppress(FileNotFoundError), index.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                name, stamp, settings = json.loads(line)
                found.append(_picture(str(name), int(stamp), settings))
    return found
