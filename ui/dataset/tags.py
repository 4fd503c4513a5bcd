"""The table of all tags of a dataset, and operations on those that are ticked in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import gradio as gr

from trainer.curation.caption_edits import Edit, count_tags, move_tags, remove_exactly, rename_tags, tags_of
from trainer.curation.operations import named
from trainer.curation.tag_spelling import near_spellings
from trainer.errors import UserError
from ui.dataset.board import IN_ORDER, Board, sent, tell
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.fields import folded
from ui.dataset.library import Entry
from ui.messages import tells_problems

PER_PAGE = 50
_MOST_LETTERS = 500
Sort = Literal["count", "rare", "name", "newest"]


@dataclass(frozen=True)
class TagQuery:
    """Which tags are asked for, and in which order.

    Attributes:
        least: captions that must have the tag.
        near: only tags that look like another, more frequent one.
        page: counted from 0.
    """

    search: str = ""
    sort: Sort = "count"
    least: int = 1
    near: bool = False
    page: int = 0

    @classmethod
    def of(cls, values: dict[str, Any]) -> TagQuery:
        """From what the browser sent; anything odd becomes the first page of everything."""
        search, sort = values.get("search"), values.get("sort")
        least, page = values.get("least"), values.get("page")
        return cls(
            search=search[:_MOST_LETTERS].strip().lower() if isinstance(search, str) else "",
            sort=cast(Sort, sort) if sort in get_args(Sort) else "count",
            least=least if isinstance(least, int) and least > 1 else 1,
            near=values.get("near") is True,
            page=page if isinstance(page, int) and page > 0 else 0,
        )


def build(desk: DatasetDesk, board: Board) -> None:
    """Lay the panel out and wire it."""
    with folded("Tags", "dataset-tag-table"):
        board.tags.render()

    @tells_problems
    def list_tags(view: View, event: gr.EventData) -> dict[str, Any]:
        query = TagQuery.of(sent(event, "search", "sort", "least", "near", "page"))
        version = desk.version(str(desk.folder(view)))
        return {"folder": view["folder"], "version": version, **table_of(desk.scoped(view, "all"), query)}

    @tells_problems
    def show(view: View, event: gr.EventData) -> list[Any]:
        return board.updates(
            desk.turn(view, {"query": {"tags": [str(sent(event, "tag")["tag"])]}, "asked": view.get("asked")})
        )

    @tells_problems
    def retag(view: View, event: gr.EventData) -> list[Any]:
        asked = sent(event, "deed", "tags", "to")
        title, edit = tag_edit(str(asked["deed"]), asked["tags"], str(asked["to"]))
        shown, outcome = desk.edit(view, "all", title, edit)
        tell("Changed", outcome)
        return board.updates(shown)

    board.tags.list(list_tags, board.grid, board.tags, **IN_ORDER)
    board.tags.show(show, board.grid, board.outputs, **IN_ORDER)
    board.tags.retag(retag, board.grid, board.outputs, **IN_ORDER)


def table_of(entries: Sequence[Entry], query: TagQuery) -> dict[str, Any]:
    """A page of the table: rows of (tag, captions that have it, the tag it looks like or None), and counts."""
    counted = count_tags(entry.own.text for entry in entries)
    counts = dict(counted)
    near = near_spellings(counts)
    found = [
        (tag, count)
        for tag, count in counted
        if count >= query.least and query.search in tag.lower() and (tag in near or not query.near)
    ]
    if query.sort == "rare":
        found.sort(key=lambda row: (row[1], row[0]))
    elif query.sort == "name":
        found.sort(key=lambda row: row[0].lower())
    elif query.sort == "newest":
        ages = _first_seen(entries)
        found.sort(key=lambda row: (-ages[row[0]], row[0]))
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(query.page, pages - 1)
    rows = [(tag, count, near.get(tag)) for tag, count in found[page * PER_PAGE : (page + 1) * PER_PAGE]]
    return {
        "rows": rows,
        "page": page,
        "pages": pages,
        "matching": len(found),
        "total": len(counted),
        "alike": len(near),
    }


def _first_seen(entries: Sequence[Entry]) -> dict[str, float]:
    """When the oldest caption file that has a tag was written last; 0 for captions without a file."""
    seen: dict[str, float] = {}
    for entry in entries:
        try:
            written = entry.own.file.stat().st_mtime
        except OSError:
            written = 0.0
        for tag in tags_of(entry.own.text):
            seen[tag] = min(written, seen.get(tag, written))
    return seen


def tag_edit(deed: str, tags: Any, to: str) -> tuple[str, Edit]:
    """What a button of the table does to the ticked tags: (title for undo, edit). Raises UserError for no tags."""
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise UserError("edit.tags", "The page names no tags.", "Reload the page.")
    edits: dict[str, tuple[str, Callable[[], Edit]]] = {
        "rename": (f"rename {named(tags)} to {to.strip()}", lambda: rename_tags(tags, to)),
        "remove": (f"remove {named(tags)}", lambda: remove_exactly(tags)),
        "first": (f"move {named(tags)} to the front", lambda: move_tags(tags, 1)),
    }
    if deed not in edits:
        raise UserError("edit.deed", "The page asks for something unknown.", "Reload the page.")
    title, make = edits[deed]
    return title, make()
