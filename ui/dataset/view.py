"""A page of a dataset's pictures as the browser gets it, and what an edit is meant for. No Gradio."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.curation.caption_edits import Edit
from trainer.curation.steps import Change
from trainer.data.image_files import is_picture_name
from trainer.errors import UserError
from ui.dataset.filters import Facts, Query, choices, matching
from ui.dataset.library import Entry, Listing
from ui.dataset.sizes import PictureSizes, Size
from ui.dataset.thumbnails import Thumbnails

_LEVELS = 3


@dataclass(frozen=True)
class _Offered:
    """What the filter offers for a listing, under a name that the browser knows it by."""

    listing: Listing
    facts: Facts
    name: str
    choices: dict[str, Any]

    def fits(self, listing: Listing, facts: Facts) -> bool:
        """Whether nothing changed that it is made of. Sizes of one listing only ever become more."""
        mine = self.facts
        return (
            self.listing is listing
            and len(mine.sizes) == len(facts.sizes)
            and (mine.settings, mine.findings) == (facts.settings, facts.findings)
        )


class Pages:
    """Makes pages of pictures; what the filter offers is only sent when it changed."""

    def __init__(self, thumbnails: Thumbnails, sizes: PictureSizes) -> None:
        self._thumbnails = thumbnails
        self._sizes = sizes
        self._offered: dict[Path, _Offered] = {}
        self._lock = threading.Lock()

    def page(self, listing: Listing, query: Query, facts: Facts, before: Mapping[str, Any]) -> dict[str, Any]:
        """What the browser needs to show a page.

        Args:
            listing: the folder's pictures.
            query: which of them are asked for.
            facts: what else is known of them.
            before: what the browser shows: ``offered`` names the choices it has, ``ticked`` the pictures ticked.
        """
        found = matching(listing, query, facts)
        pages = max(1, -(-len(found) // query.per_page))
        page = min(query.page, pages - 1)
        first = page * query.per_page
        token = self._thumbnails.register(listing.folder, list(listing.by_name))
        self._thumbnails.prepare(entry.path for _, entry in found[first + query.per_page : first + 2 * query.per_page])
        shown = found[first : first + query.per_page]
        sizes = self._sizes.of(listing.folder, [entry for _, entry in shown])
        offered = self._offer(listing, facts)
        return {
            "folder": str(listing.folder),
            "title": " / ".join(listing.folder.parts[-2:]),
            "total": len(listing.entries),
            "captioned": listing.captioned,
            "matching": len(found),
            "page": page,
            "pages": pages,
            "first": first,
            "query": query.as_json(),
            "cards": [_card(number, entry, sizes[entry.name], token, self._thumbnails) for number, entry in shown],
            "unread": len(listing.entries) - len(facts.sizes),
            "offered": offered.name,
            **(offered.choices if before.get("offered") != offered.name else {}),
            **_ticks(listing, found, ticked(before)),
        }

    def _offer(self, listing: Listing, facts: Facts) -> _Offered:
        with self._lock:
            offered = self._offered.get(listing.folder)
            if offered is None or not offered.fits(listing, facts):
                offered = _Offered(listing, facts, secrets.token_hex(6), choices(listing, facts))
                self._offered[listing.folder] = offered
            return offered


def changes(entries: Iterable[Entry], edit: Edit) -> list[Change]:
    """What the edit would change, as changes of caption files; pictures that share one are edited once."""
    by_file = {entry.caption_name: entry for entry in entries}
    edited = ((entry, edit(entry.own.text)) for entry in by_file.values())
    return [Change(entry.caption_name, entry.own.stored, text) for entry, text in edited if text != entry.own.text]


def scoped(listing: Listing, scope: str, query: Query, facts: Facts, ticked: Sequence[str]) -> list[Entry]:
    """The pictures an edit is meant for: ``all``, ``shown`` by the filter, or ``selected``.

    Raises UserError when that is none.
    """
    if scope == "selected":
        names = set(ticked)
        entries = [entry for entry in listing.entries if entry.name in names]
    elif scope == "shown":
        entries = [entry for _, entry in matching(listing, query, facts)]
    else:
        entries = list(listing.entries)
    if not entries:
        hint = "Tick pictures first (space bar), or choose all." if scope == "selected" else "Clear the filter."
        raise UserError("edit.nothing_chosen", "No pictures are chosen.", hint)
    return entries


def picked(found: list[tuple[int, Entry]], ticked: Sequence[str], how: str, start: Any, end: Any) -> list[str]:
    """Names of the pictures ticked after a choice over all pages.

    Args:
        found: the pictures that match, in order.
        ticked: names ticked before; those that do not match stay as they are.
        how: ``all`` that match, ``invert`` among those that match, or ``range``.
        start: for a range, the place of one end among those that match.
        end: likewise of the other.
    """
    before = dict.fromkeys(ticked)
    names = [entry.name for _, entry in found]
    if how == "invert":
        return [*(before.keys() - set(names)), *(name for name in names if name not in before)]
    if how == "range":
        first, last = sorted(place if isinstance(place, int) else 0 for place in (start, end))
        names = names[max(0, first) : max(0, last + 1)]
    return list(before | dict.fromkeys(names))


def datasets(datasets_dir: Path) -> list[Path]:
    """Folders of the workspace that hold pictures themselves, at most three levels down."""
    return sorted(_with_pictures(datasets_dir, _LEVELS))


def _with_pictures(folder: Path, levels: int) -> Iterable[Path]:
    try:
        with os.scandir(folder) as entries:
            for below in entries:
                if not below.name.startswith((".", "__MACOSX")) and below.is_dir(follow_symlinks=False):
                    path = folder / below.name
                    if _has_pictures(path):
                        yield path
                    if levels > 1:
                        yield from _with_pictures(path, levels - 1)
    except OSError:  # not there, or not ours to read
        return


def _has_pictures(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(is_picture_name(entry.name) and not entry.is_dir() for entry in entries)
    except OSError:
        return False


def ticked(view: Mapping[str, Any]) -> list[str]:
    """Names of the ticked pictures, which the browser sends along with each event as one text.

    As a list it would be kept as one observed value per name in the browser: with 10,000 of them 70 MB at each event.
    """
    try:
        names = json.loads(view.get("ticked") or "[]")
    except (ValueError, TypeError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def as_ticked(names: Sequence[str]) -> str:
    """Names as the browser sends and takes them, see ``ticked``."""
    return json.dumps(names)


def _ticks(listing: Listing, found: list[tuple[int, Entry]], ticked: Sequence[str]) -> dict[str, Any]:
    """How many ticked pictures the filter hides, and names that are ticked but gone from the folder."""
    names = set(ticked)
    gone = names - listing.by_name.keys()
    shown = sum(entry.name in names for _, entry in found) if names else 0
    return {"hidden": len(names) - len(gone) - shown, "gone": sorted(gone)}


def _card(number: int, entry: Entry, size: Size, token: str, thumbnails: Thumbnails) -> dict[str, Any]:
    return {
        "name": entry.name,
        "caption": entry.own.text,
        "stored": entry.own.stored,
        "file": entry.caption_name,
        "thumb": thumbnails.address("thumb", token, number, entry.stamp[0]),
        "picture": thumbnails.address("picture", token, number, entry.stamp[0]),
        "width": size[0],
        "height": size[1],
    }
