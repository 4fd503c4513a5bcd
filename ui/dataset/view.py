"""A folder of pictures as the Dataset tab shows it: listing, filter, pages, tags. Pure functions and no Gradio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trainer.curation.caption_edits import Edit, count_tags, tags_of
from trainer.curation.steps import Change
from trainer.data.caption_files import caption_path
from trainer.data.caption_tables import CaptionTables, read_caption_tables
from trainer.data.folders import picture_files
from trainer.data.image_files import PICTURE_ERRORS, read_size
from trainer.data.own_captions import CAPTION_ENDINGS, OwnCaption, own_caption
from trainer.errors import UserError
from ui.dataset.thumbnails import Thumbnails

PER_PAGE = 48
SHOWN_TAGS = 300
_MAX_QUERY = 500
_RECENT_SECONDS = 15.0

Finding = Mapping[str, Any]
"""A doctor's finding as JSON: code, severity, paths, message, hint."""


@dataclass(frozen=True)
class Entry:
    """A picture of the listing. ``name`` is its path within the folder, ``caption_name`` that of its caption file."""

    name: str
    path: Path
    own: OwnCaption
    caption_name: str


@dataclass(frozen=True)
class Listing:
    """All pictures of a folder with their captions, in order."""

    folder: Path
    entries: tuple[Entry, ...]

    @cached_property
    def captioned(self) -> int:
        """How many pictures have a caption."""
        return sum(1 for entry in self.entries if entry.own.text.strip())

    @cached_property
    def tags(self) -> list[tuple[str, int]]:
        """The most frequent tags, with the number of captions that hold them."""
        return count_tags(entry.own.text for entry in self.entries)[:SHOWN_TAGS]

    def named(self, name: str) -> Entry:
        """The picture of this name. Raises UserError when it is not, or no longer, in the folder."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise UserError("dataset.gone", f"{name!r} is not in the folder any more.", "Open the folder again.")


@dataclass(frozen=True)
class Query:
    """Which pictures are asked for. ``show``: all, uncaptioned, or ``finding:N`` for the doctor's N-th finding."""

    page: int = 0
    text: str = ""
    show: str = "all"
    tag: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Query:
        """From what the browser sent; anything odd becomes the first page of everything."""
        page = values.get("page")
        texts = {name: values.get(name) for name in ("text", "show", "tag")}
        kept = {name: text[:_MAX_QUERY] for name, text in texts.items() if isinstance(text, str)}
        return cls(page=page if isinstance(page, int) and page > 0 else 0, **kept)


class Library:
    """Lists folders, reading again only the captions whose files changed since the last look.

    Args:
        may_read: whether the page may show what lies at a path; asked for links, which can lead anywhere.
    """

    def __init__(self, may_read: Callable[[Path], bool]) -> None:
        self._may_read = may_read
        self._known: dict[Path, tuple[tuple[Any, ...], OwnCaption]] = {}
        self._latest: tuple[float, Listing] | None = None
        self._lock = threading.Lock()

    def recent(self, folder: Path) -> Listing:
        """The folder as it was some seconds ago at most: looking at 10,000 files for each page turned is too slow."""
        latest = self._latest
        if latest is not None and latest[1].folder == folder and time.monotonic() - latest[0] < _RECENT_SECONDS:
            return latest[1]
        return self.listing(folder)

    def listing(self, folder: Path) -> Listing:
        """The folder as it is now. Raises UserError when it is missing or holds no pictures."""
        if not folder.is_dir():
            raise UserError("dataset.missing_folder", f"The folder {folder} does not exist.", "Check the path.")
        paths = [path for path in picture_files(folder) if not self._leads_out(path)]
        if not paths:
            raise UserError(
                "dataset.no_pictures",
                f"The folder {folder} holds no pictures (png, jpg, webp, bmp).",
                "Choose the folder with the pictures, or add some.",
            )
        tables = read_caption_tables(folder)
        with self._lock:
            self._known = {path: self._caption(path, tables) for path in paths}
            owns = [self._known[path][1] for path in paths]
        entries = (
            Entry(_within(folder, path), path, own, _within(folder, own.file))
            for path, own in zip(paths, owns, strict=True)
        )
        listing = Listing(folder, tuple(entries))
        self._latest = (time.monotonic(), listing)
        return listing

    def _leads_out(self, path: Path) -> bool:
        beside = (caption_path(path, ending) for ending in CAPTION_ENDINGS)
        return any(file.is_symlink() and not self._may_read(file.resolve()) for file in (path, *beside))

    def _caption(self, path: Path, tables: CaptionTables) -> tuple[tuple[Any, ...], OwnCaption]:
        signature = (*(_stamp(caption_path(path, ending)) for ending in CAPTION_ENDINGS), tables.captions.get(path))
        known = self._known.get(path)
        if known is not None and known[0] == signature:
            return known
        return signature, own_caption(path, tables)


def matching(listing: Listing, query: Query, findings: Sequence[Finding]) -> list[tuple[int, Entry]]:
    """The pictures that the query asks for, each with its number in the listing."""
    text = query.text.strip().lower()
    named = _finding_names(query.show, findings)

    def wanted(entry: Entry) -> bool:
        caption = entry.own.text
        if query.show == "uncaptioned" and caption.strip():
            return False
        if named is not None and entry.name not in named:
            return False
        if query.tag and query.tag not in tags_of(caption):
            return False
        return not text or text in caption.lower() or text in entry.name.lower()

    return [(number, entry) for number, entry in enumerate(listing.entries) if wanted(entry)]


def view(listing: Listing, query: Query, findings: Sequence[Finding], thumbnails: Thumbnails) -> dict[str, Any]:
    """What the browser needs for one page: counts, tags, the choices of the filter and the page's cards."""
    found = matching(listing, query, findings)
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(query.page, pages - 1)
    token = thumbnails.register([entry.path for entry in listing.entries])
    first = page * PER_PAGE
    return {
        "folder": str(listing.folder),
        "title": " / ".join(listing.folder.parts[-2:]),
        "total": len(listing.entries),
        "captioned": listing.captioned,
        "matching": len(found),
        "page": page,
        "pages": pages,
        "first": first,
        "query": {"text": query.text, "show": query.show, "tag": query.tag},
        "shows": _choices(listing, findings),
        "tags": listing.tags,
        "cards": [_card(number, entry, token, thumbnails) for number, entry in found[first : first + PER_PAGE]],
    }


def changes(entries: Iterable[Entry], edit: Edit) -> list[Change]:
    """What the edit would change, as changes of caption files; pictures that share one are edited once."""
    by_file = {entry.caption_name: entry for entry in entries}
    edited = ((entry, edit(entry.own.text)) for entry in by_file.values())
    return [Change(entry.caption_name, entry.own.stored, text) for entry, text in edited if text != entry.own.text]


def scoped(
    listing: Listing, scope: str, query: Query, findings: Sequence[Finding], selected: Iterable[Any]
) -> list[Entry]:
    """The pictures an edit is meant for: ``all``, ``shown`` by the filter, or ``selected``.

    Raises UserError when that is none.
    """
    if scope == "selected":
        names = {name for name in selected if isinstance(name, str)}
        entries = [entry for entry in listing.entries if entry.name in names]
    elif scope == "shown":
        entries = [entry for _, entry in matching(listing, query, findings)]
    else:
        entries = list(listing.entries)
    if not entries:
        hint = "Tick pictures first (space bar), or choose all." if scope == "selected" else "Clear the filter."
        raise UserError("edit.nothing_chosen", "No pictures are chosen.", hint)
    return entries


def datasets(datasets_dir: Path) -> list[Path]:
    """Folders of the workspace that hold pictures themselves, at most three levels down."""
    folders = sorted({path.parent for path in picture_files(datasets_dir)}) if datasets_dir.is_dir() else []
    return [folder for folder in folders if len(folder.relative_to(datasets_dir).parts) in (1, 2, 3)]


def _card(number: int, entry: Entry, token: str, thumbnails: Thumbnails) -> dict[str, Any]:
    try:
        width, height = read_size(entry.path)
    except PICTURE_ERRORS:
        width = height = 0
    return {
        "name": entry.name,
        "caption": entry.own.text,
        "stored": entry.own.stored,
        "file": entry.caption_name,
        "thumb": thumbnails.address("thumb", token, number, entry.path),
        "picture": thumbnails.address("picture", token, number, entry.path),
        "width": width,
        "height": height,
    }


def _choices(listing: Listing, findings: Sequence[Finding]) -> list[tuple[str, str]]:
    missing = len(listing.entries) - listing.captioned
    choices = [("all", f"All pictures ({len(listing.entries)})"), ("uncaptioned", f"Without a caption ({missing})")]
    for number, finding in enumerate(findings):
        if finding["paths"]:
            choices.append((f"finding:{number}", f"{finding['message']} ({len(finding['paths'])})"))
    return choices


def _finding_names(show: str, findings: Sequence[Finding]) -> set[str] | None:
    kind, _, number = show.partition(":")
    if kind != "finding" or not number.isdigit() or int(number) >= len(findings):
        return None
    return set(findings[int(number)]["paths"])


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _within(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
