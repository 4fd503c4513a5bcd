"""Drafts of captions as the page shows them: pages, states, and what differs from the caption there is. No Gradio."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, get_args

from trainer.captioners.drafts import Draft, DraftFile, DraftState
from ui.dataset.library import Entry, Listing

PER_PAGE = 12
_MOST_PAIRS = 250_000  # words before times words after; more of them are not compared word by word
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_SHOWN: tuple[str, ...] = ("all", "open", "accepted", "rejected", "conflict")

Piece = tuple[str, str]
"""A kind, one of same, old and new, and a piece of text."""


@dataclass(frozen=True)
class DraftQuery:
    """Which drafts are asked for: ``show`` is ``all`` or a state."""

    page: int = 0
    show: str = "all"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DraftQuery:
        """From what the browser sent; anything odd becomes the first page of everything."""
        page, show = values.get("page"), values.get("show")
        return cls(page if isinstance(page, int) and page > 0 else 0, str(show) if show in _SHOWN else "all")


@dataclass(frozen=True)
class Shown:
    """A draft with its picture, and the state it is in."""

    draft: Draft
    entry: Entry
    state: DraftState


def undecided(drafts: DraftFile, listing: Listing) -> list[Shown]:
    """The drafts that are not written yet, of pictures that are still there, in the folder's order."""
    by_name = drafts.read()
    found = [(by_name[entry.name], entry) for entry in listing.entries if entry.name in by_name]
    shown = [Shown(draft, entry, draft.state(entry.own.stored)) for draft, entry in found if _fits(draft, entry)]
    return [one for one in shown if one.state != "written"]


def key(folder: Path, version: str, query: DraftQuery) -> str:
    """Names what is shown: it changes when drafts do, and when another page or state is asked for.

    ``version`` is that of the drafts before they were read.
    """
    return json.dumps([str(folder), version, query.page, query.show])


def query_in(shown_key: str, folder: Path) -> DraftQuery:
    """The query of a key that belongs to this folder; else the first page."""
    try:
        shown_folder, _, page, show = json.loads(shown_key)
    except ValueError:
        return DraftQuery()
    return DraftQuery.of({"page": page, "show": show}) if shown_folder == str(folder) else DraftQuery()


def drafts_view(
    drafts: Sequence[Shown], query: DraftQuery, folder: Path, thumbs: Callable[[Sequence[Entry]], Sequence[str]]
) -> dict[str, Any]:
    """What the browser needs for one page of drafts.

    Args:
        drafts: all of them.
        query: which of them to show.
        folder: the folder of pictures.
        thumbs: addresses of small pictures.
    """
    counts = Counter(one.state for one in drafts)
    found = [one for one in drafts if query.show in ("all", one.state)]
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(query.page, pages - 1)
    first = page * PER_PAGE
    cards = found[first : first + PER_PAGE]
    return {
        "folder": str(folder),
        "total": len(drafts),
        "counts": {state: counts[state] for state in get_args(DraftState)},
        "show": query.show,
        "page": page,
        "pages": pages,
        "first": first,
        "matching": len(found),
        "cards": [_card(one, thumb) for one, thumb in zip(cards, thumbs([one.entry for one in cards]), strict=True)],
    }


def difference(old: str, new: str) -> list[Piece]:
    """What became of a text, word by word: pieces that stayed, went and came, in reading order."""
    before, after = _TOKEN.findall(old), _TOKEN.findall(new)
    if len(before) * len(after) > _MOST_PAIRS:
        return [("old", old), ("new", new)]
    pieces: list[Piece] = []
    for kind, start, end, new_start, new_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, come = "".join(before[start:end]), "".join(after[new_start:new_end])
        pieces += [("same", gone)] if kind == "equal" else [("old", gone), ("new", come)]
    return [(kind, text) for kind, text in pieces if text]


def _fits(draft: Draft, entry: Entry) -> bool:
    return draft.file == entry.caption_name


def _card(one: Shown, thumb: str) -> dict[str, Any]:
    draft = one.draft
    old = one.entry.own.text if one.state == "conflict" else draft.old
    return {
        "name": draft.name,
        "thumb": thumb,
        "text": draft.text,
        "old": old,
        "state": one.state,
        "difference": difference(old, draft.text) if old.strip() else [],
    }
