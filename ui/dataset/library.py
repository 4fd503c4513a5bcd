"""Datasets as the page lists them: pictures with their captions, read again only where something changed. No Gradio."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from trainer.curation.caption_edits import tags_of
from trainer.data.caption_files import caption_path
from trainer.data.caption_tables import CaptionTables, read_table_files
from trainer.data.own_captions import CAPTION_ENDINGS, OwnCaption, own_caption
from trainer.errors import UserError
from ui.dataset.scan import Roots, Scan, Stamp, scan, scan_some, stem

SHOWN_TAGS = 300
_KEPT_FOLDERS = 4
_RECENT_SECONDS = 15.0


@dataclass(frozen=True)
class Entry:
    """A picture of the listing. ``name`` is its path within the folder, ``caption_name`` that of its caption file."""

    name: str
    path: Path
    own: OwnCaption
    caption_name: str
    stamp: Stamp = (0, 0)
    has_mask: bool = False

    @cached_property
    def tags(self) -> frozenset[str]:
        """The tags of its caption."""
        return frozenset(tags_of(self.own.text))

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """The subfolder it lies in and those around that one; ``.`` for none."""
        parts = self.name.split("/")[:-1]
        return tuple("/".join(parts[: count + 1]) for count in range(len(parts))) or (".",)

    @cached_property
    def searched(self) -> str:
        """Name and caption in small letters: what a search looks into."""
        return f"{self.name}\n{self.own.text}".lower()


@dataclass(frozen=True)
class Listing:
    """All pictures of a folder with their captions, in order. A folder that did not change has the same one."""

    folder: Path
    entries: tuple[Entry, ...]

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """The pictures by name."""
        return {entry.name: entry for entry in self.entries}

    @cached_property
    def captioned(self) -> int:
        """How many pictures have a caption."""
        return sum(1 for entry in self.entries if entry.own.text.strip())

    @cached_property
    def tags(self) -> list[tuple[str, int]]:
        """The most frequent tags, with the number of captions that hold them."""
        counts = Counter(tag for entry in self.entries for tag in entry.tags)
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_TAGS]

    def named(self, name: str) -> Entry:
        """The picture of this name. Raises UserError when it is not, or no longer, in the folder."""
        entry = self.by_name.get(name)
        if entry is None:
            raise UserError("dataset.gone", f"{name!r} is not in the folder any more.", "Open the folder again.")
        return entry


@dataclass
class _Kept:
    """What is known of a folder from the last look at it."""

    listing: Listing
    scan: Scan
    tables: CaptionTables
    seconds: float


class Library:
    """Lists folders, reading again only the captions whose files changed since the last look.

    Args:
        roots: the folders that the page may read; links can lead anywhere.
    """

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._kept: OrderedDict[Path, _Kept] = OrderedDict()
        self._lock = threading.RLock()
        self._looking = threading.Lock()

    def recent(self, folder: Path) -> Listing:
        """The folder with the files it has now; files written in place may have been read some seconds ago.

        Looking at 10,000 files for each page turned is too slow. Folders tell when a file comes or goes; the rest is
        looked at in the background from time to time, and shows with the next page.
        """
        kept = self._kept.get(folder)
        if kept is None or not kept.scan.is_current():
            return self.listing(folder)
        if time.monotonic() - kept.seconds > _RECENT_SECONDS:
            threading.Thread(target=self._look_again, args=(folder,), name="listing", daemon=True).start()
        return kept.listing

    def listing(self, folder: Path) -> Listing:
        """The folder as it is now. Raises UserError when it is missing or holds no pictures."""
        if not folder.is_dir():
            raise UserError("dataset.missing_folder", f"The folder {folder} does not exist.", "Check the path.")
        with self._lock:
            kept = _look(folder, self._roots(), self._kept.get(folder))
            self._kept[folder] = kept
            self._kept.move_to_end(folder)
            while len(self._kept) > _KEPT_FOLDERS:
                self._kept.popitem(last=False)
        if not kept.listing.entries:
            raise UserError(
                "dataset.no_pictures",
                f"The folder {folder} holds no pictures (png, jpg, webp, bmp).",
                "Choose the folder with the pictures, or add some.",
            )
        return kept.listing

    def again(self, folder: Path, names: Sequence[str]) -> Listing:
        """The folder as last listed, but with these pictures and their captions as they are now.

        For files that are shown, or that were just written. Raises UserError as ``listing`` does.
        """
        with self._lock:
            kept = self._kept.get(folder)
            if kept is None:
                return self.listing(folder)
            now = scan_some(folder, self._roots(), names, kept.scan)
            if now is None:  # a picture is gone: its folder is looked through
                return self.listing(folder)
            if not now.same_files(kept.scan):
                kept = _listed(folder, now, kept, kept.seconds, {stem(name) for name in names})
            self._kept[folder] = replace(kept, scan=now)
            return kept.listing

    def _look_again(self, folder: Path) -> None:
        if not self._looking.acquire(blocking=False):
            return
        try:
            self.listing(folder)
        except UserError:
            return  # the next page tells
        finally:
            self._looking.release()


def _look(folder: Path, roots: Sequence[Path], before: _Kept | None) -> _Kept:
    seconds, now = time.monotonic(), scan(folder, roots)
    if before is not None and now.same_files(before.scan):
        return _Kept(before.listing, now, before.tables, seconds)
    return _listed(folder, now, before, seconds)


def _listed(
    folder: Path, now: Scan, before: _Kept | None, seconds: float, touched: Container[str] | None = None
) -> _Kept:
    """The folder as ``now`` saw it. Only pictures whose stems are ``touched`` may have changed; None for any."""
    tables = _tables(now, folder, before)
    known = before.listing.by_name if before is not None else {}

    def is_as_before(entry: Entry) -> bool:
        if before is None or (touched is not None and stem(entry.name) not in touched):
            return before is not None
        return _signature(entry, now, tables) == _signature(entry, before.scan, before.tables)

    entries = []
    for name in now.pictures:
        entry = known.get(name)
        entries.append(entry if entry is not None and is_as_before(entry) else _entry(folder, name, now, tables))
    return _Kept(Listing(folder, tuple(entries)), now, tables, seconds)


def _signature(entry: Entry, seen: Scan, tables: CaptionTables) -> tuple[object, ...]:
    """What an entry is made of: where this differs, it is made anew."""
    bare = stem(entry.name)
    captions = (seen.captions.get(bare + ending) for ending in CAPTION_ENDINGS)
    return (seen.pictures[entry.name], bare in seen.masks, tables.captions.get(entry.path), *captions)


def _entry(folder: Path, name: str, now: Scan, tables: CaptionTables) -> Entry:
    path, bare = folder / name, stem(name)
    if any(bare + ending in now.captions for ending in CAPTION_ENDINGS):
        own = own_caption(path, tables)
    else:  # nothing is opened that was not looked at: a new file may be a link to anywhere
        own = OwnCaption(tables.captions.get(path, ""), caption_path(path), None)
    return Entry(name, path, own, own.file.relative_to(folder).as_posix(), now.pictures[name], bare in now.masks)


def _tables(now: Scan, folder: Path, before: _Kept | None) -> CaptionTables:
    """The caption tables; which pictures they speak of depends on those there are."""
    if before is not None and before.scan.tables == now.tables and before.scan.pictures.keys() == now.pictures.keys():
        return before.tables
    return read_table_files(folder / name for name in sorted(now.tables))
