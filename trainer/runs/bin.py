"""The bin: runs and checkpoints that were deleted lie in ``WORKSPACE/bin`` until they are restored or it is emptied.

Each has a folder of its own with ``item.json``, which tells where it came from, beside what was deleted.
"""

from __future__ import annotations

import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ValidationError

from trainer.errors import UserError
from trainer.files import read_json, size_bytes, write_json

Kind = Literal["run", "checkpoint"]
ITEM, CONTENT = "item.json", "content"


class BinItem(BaseModel):
    """``item.json``.

    Attributes:
        id: name of its folder in the bin.
        kind: what it is.
        title: what a person calls it: ``my-cat``, or ``my-cat, step 40``.
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

    def items(self) -> list[BinItem]:
        """What is in it, deleted last first. Folders that are no items are left out."""
        if not self.dir.is_dir():
            return []
        found = []
        for folder in self.dir.iterdir():
            with suppress(UserError):
                found.append(self.item(folder.name))
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
        """Move a folder of the workspace into the bin."""
        item = BinItem(
            id=f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}",
            kind=kind,
            title=title,
            place=folder.relative_to(self.workspace_dir).as_posix(),
            size_bytes=size_bytes(folder),
            deleted=time.time(),
        )
        write_json(self.dir / item.id / ITEM, item.model_dump())  # first: without it nobody knew where the rest belongs
        shutil.move(folder, self.dir / item.id / CONTENT)
        return item

    def restore(self, item_id: str) -> Path:
        """Put an item back where it was, and return that place.

        Raises UserError when the place is taken, or when the run of a checkpoint is not there.
        """
        item = self.item(item_id)
        place = self._place(item)
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

    def empty(self) -> int:
        """Delete all that is in the bin for good; returns the bytes freed."""
        return sum(self.remove(item.id) for item in self.items())

    def _place(self, item: BinItem) -> Path:
        """Where an item belongs: under ``runs/``, whatever was written into its file."""
        parts = PurePosixPath(item.place).parts
        if parts[:1] != ("runs",) or ".." in parts or len(parts) != (2 if item.kind == "run" else 4):
            message = f"{item.title} does not say where it belongs: {item.place!r}."
            raise UserError("bin.place", message, f"Its files are in {self.dir / item.id / CONTENT}.")
        return self.workspace_dir.joinpath(*parts)
