"""The bin: runs, checkpoints, pictures and grids that were deleted lie in ``WORKSPACE/bin`` until restored or emptied.

Each has a folder of its own with ``item.json``, which tells where it came from, beside what was deleted.
"""

from __future__ import annotations

import itertools
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ValidationError

from trainer.errors import UserError
from trainer.files import read_json, size_bytes, write_json

Kind = Literal["run", "checkpoint", "pictures", "grid"]
ITEM, CONTENT = "item.json", "content"
_DEPTH: dict[Kind, int] = {"run": 2, "checkpoint": 4, "pictures": 1, "grid": 2}
"""Folders on the way from the workspace to the place of each kind."""


class BinItem(BaseModel):
    """``item.json``.

    Attributes:
        id: name of its folder in the bin.
        kind: what it is.
        title: what a person calls it: ``my-cat``, ``my-cat, step 40``, or ``3 pictures``.
        place: where it came from, under the workspace, with forward slashes.
        size_bytes: of all its files.
        deleted: Unix seconds.
    """

    id: str
    kind: Kind
    title: str
    place: str
    size_bytes: int
    deleted: float


@dataclass(frozen=True)
class Bin:
    """The bin of a workspace, whose folder is ``workspace_dir``."""

    workspace_dir: Path

    @property
    def dir(self) -> Path:
        """Where it lies."""
        return self.workspace_dir / "bin"

    def items(self, kind: Kind | None = None) -> list[BinItem]:
        """What is in it, or all of one kind, deleted last first. Folders that are no items are left out."""
        if not self.dir.is_dir():
            return []
        found = []
        for folder in self.dir.iterdir():
            with suppress(UserError):
                found.append(self.item(folder.name))
        found = [item for item in found if kind in (None, item.kind)]
        return sorted(found, key=lambda item: -item.deleted)

    def item(self, item_id: str) -> BinItem:
        """The item of this id. Raises UserError when there is none; an id cannot lead out of the bin."""
        folder = self.dir / item_id
        try:
            if Path(item_id).name != item_id or not (folder / CONTENT).is_dir():
                raise FileNotFoundError(folder / CONTENT)
            return BinItem.model_validate(read_json(folder / ITEM)).model_copy(update={"id": item_id})
        except (OSError, ValueError, ValidationError) as error:
            message = f"There is no {item_id!r} in the bin {self.dir}."
            raise UserError("bin.unknown", message, "It may have been restored or deleted already.") from error

    def put(self, folder: Path, kind: Kind, title: str) -> BinItem:
        """Move a folder of the workspace into the bin. Raises UserError when it is not there any more."""
        item = self._noted(kind, title, folder, size_bytes(folder))
        try:
            shutil.move(folder, self.dir / item.id / CONTENT)
        except FileNotFoundError as error:
            shutil.rmtree(self.dir / item.id)
            hint = "It may have been deleted in another window."
            raise UserError("bin.gone", f"{title} is not there any more.", hint) from error
        return item

    def put_pictures(self, pictures: Sequence[Path], title: str) -> BinItem:
        """Move pictures of one folder into the bin, as one item; those that are gone already are passed over."""
        sizes = [path.stat().st_size for path in pictures if path.is_file()]
        item = self._noted("pictures", title, pictures[0].parent, sum(sizes))
        content = self.dir / item.id / CONTENT
        content.mkdir()
        for path in pictures:
            with suppress(FileNotFoundError):
                path.rename(content / path.name)
        return item

    def restore(self, item_id: str) -> Path:
        """Put an item back where it was, and return that place. A picture whose name is taken gets a free one.

        Raises UserError when the place is taken, or when the run of a checkpoint is not there.
        """
        item = self.item(item_id)
        place = self._place(item)
        if item.kind == "pictures":
            self._put_back_into(place, item)
            return place
        if place.exists():
            message = f"{item.title} cannot be restored: there is another one at {place}."
            raise UserError("bin.taken", message, "Delete or move that one first.")
        if item.kind == "checkpoint" and not place.parent.is_dir():
            message = f"{item.title} cannot be restored: its run is not there."
            raise UserError("bin.no_run", message, "Restore the run first.")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(self.dir / item.id / CONTENT, place)
        shutil.rmtree(self.dir / item.id)
        return place

    def remove(self, item_id: str) -> int:
        """Delete an item for good; returns the bytes freed."""
        item = self.item(item_id)
        shutil.rmtree(self.dir / item.id)
        return item.size_bytes

    def empty(self, kind: Kind | None = None) -> int:
        """Delete all that is in the bin, or all of one kind, for good; returns the bytes freed."""
        return sum(self.remove(item.id) for item in self.items(kind))

    def _noted(self, kind: Kind, title: str, place: Path, size: int) -> BinItem:
        """A new item whose file is written: first, for without it nobody knew where the rest belongs."""
        item = BinItem(
            id=f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}",
            kind=kind,
            title=title,
            place=place.relative_to(self.workspace_dir).as_posix(),
            size_bytes=size,
            deleted=time.time(),
        )
        write_json(self.dir / item.id / ITEM, item.model_dump())
        return item

    def _put_back_into(self, place: Path, item: BinItem) -> None:
        place.mkdir(parents=True, exist_ok=True)
        for path in (self.dir / item.id / CONTENT).iterdir():
            names = (f"{path.stem}-{number}{path.suffix}" for number in itertools.count(2))
            target = place / path.name
            while target.exists():
                target = place / next(names)
            path.rename(target)
        shutil.rmtree(self.dir / item.id)

    def _place(self, item: BinItem) -> Path:
        """Where an item belongs: under ``runs/``, ``pictures/`` or ``grids/``, whatever was written into its file."""
        parts = PurePosixPath(item.place).parts
        top = {"pictures": "pictures", "grid": "grids"}.get(item.kind, "runs")
        if parts[:1] != (top,) or ".." in parts or len(parts) != _DEPTH[item.kind]:
            message = f"{item.title} does not say where it belongs: {item.place!r}."
            raise UserError("bin.place", message, f"Its files are in {self.dir / item.id / CONTENT}.")
        return self.workspace_dir.joinpath(*parts)
