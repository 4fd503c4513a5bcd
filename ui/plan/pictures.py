"""Pictures of a plan by bucket or by what is worth a look, page by page, with small versions. No Gradio.

The browser names a job and a group. Both are looked up in what the server made; it never names a path.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import jobs
from trainer.errors import UserError
from ui.context import AppContext
from ui.messages import as_text

PER_PAGE = 24
_KEPT_PLANS = 4


@dataclass(frozen=True)
class _Group:
    """Pictures that are shown together. ``numbers``: their places in the plan's list of files; ``told``: as shown."""

    numbers: list[int]
    told: list[dict[str, Any]]


@dataclass(frozen=True)
class _Shelf:
    """A plan's pictures: their files, and the groups they are shown in."""

    paths: list[str]
    groups: dict[str, _Group]


class PlanPictures:
    """Answers which pictures a bucket holds, from the results of jobs."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()

    def answer(self, asked: Any) -> dict[str, Any]:
        """What ``{"job", "shows", "start"}`` asks for: ``items`` and ``total``, or ``problem``."""
        try:
            job_id, shows, start = str(asked["job"]), str(asked["shows"]), max(0, int(asked["start"]))
            return self._page(job_id, shows, start)
        except UserError as error:
            return {"problem": as_text(error)}
        except (KeyError, TypeError, ValueError):
            return {"problem": "The page and the program do not fit together. Reload the page."}

    def _page(self, job_id: str, shows: str, start: int) -> dict[str, Any]:
        shelf = self._shelf(job_id)
        token = self._context.thumbnails.register(
            Path("/"), shelf.paths
        )  # each time: lists not asked for are forgotten
        group = shelf.groups.get(shows, _Group([], []))
        end = start + PER_PAGE
        pictures = zip(group.numbers[start:end], group.told[start:end], strict=True)
        items = [{**told, **self._addresses(token, number, shelf.paths[number])} for number, told in pictures]
        return {"items": items, "start": start, "total": len(group.numbers), "per_page": PER_PAGE}

    def _addresses(self, token: str, number: int, path: str) -> dict[str, str]:
        try:
            modified_ns = Path(path).stat().st_mtime_ns
        except OSError:  # gone meanwhile: its place stays empty
            modified_ns = 0
        return {
            kind: self._context.thumbnails.address(kind, token, number, modified_ns) for kind in ("thumb", "picture")
        }

    def _shelf(self, job_id: str) -> _Shelf:
        shelf = self._shelves.get(job_id)
        if shelf is None:
            result = jobs.job(self._context.workspace, job_id).read().result or {}
            if "placed" not in result:
                raise UserError("plan.gone", "This plan is no longer there.", "Check again.")
            shelf = self._shelves[job_id] = _shelf_of(result)
        self._shelves.move_to_end(job_id)
        while len(self._shelves) > _KEPT_PLANS:
            self._shelves.popitem(last=False)
        return shelf


def _shelf_of(plan: dict[str, Any]) -> _Shelf:
    numbers: dict[str, int] = {}
    groups: dict[str, _Group] = {}
    sizes = {each["path"]: each for each in plan["placed"]}

    def add(shows: str, path: str, told: dict[str, Any]) -> None:
        group = groups.setdefault(shows, _Group([], []))
        group.numbers.append(numbers.setdefault(path, len(numbers)))
        group.told.append({"name": Path(path).name, **told})

    for each in plan["placed"]:
        width, height = each["bucket"]
        shows = f"bucket:{width}x{height}" if each["repeats"] else "held_back"
        add(shows, each["path"], _placed(each))
    for kind, notes in plan["notes"].items():
        for note in notes:
            known = sizes.get(note["path"])
            add(f"note:{kind}", note["path"], {**(_placed(known) if known else {}), "note": note["note"]})
    return _Shelf(list(numbers), groups)


def _placed(picture: dict[str, Any]) -> dict[str, Any]:
    cut = picture["cropped_share"]
    words = [f"{picture['width']} × {picture['height']}"]
    if cut >= 0.005:
        words.append(f"{cut:.0%} cut off")
    if picture["repeats"] > 1:
        words.append(f"seen {picture['repeats']} times")
    if picture["is_regularization"]:
        words.append("regularization")
    return {
        "width": picture["width"],
        "height": picture["height"],
        "box": picture["box"] if cut >= 0.0005 else None,
        "note": ", ".join(words),
    }
