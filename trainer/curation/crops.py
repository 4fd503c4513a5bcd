"""Crop boxes drawn by hand, kept in the workspace per folder of pictures; the pictures themselves stay as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainer.curation.edit_log import edits_dir
from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.runs.store import Workspace

SMALLEST_SIDE = 0.01
"""A box narrower or lower than this share of the picture is a slip of the hand."""


@dataclass(frozen=True)
class Box:
    """A part of an upright picture, each side as a share of its width or height, from 0 to 1.

    Raises UserError for a box that is empty, turned round, or leads out of the picture.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        sides = (self.left, self.top, self.right, self.bottom)
        inside = all(math.isfinite(side) and 0 <= side <= 1 for side in sides)
        if not inside or min(self.right - self.left, self.bottom - self.top) < SMALLEST_SIDE:
            raise UserError(
                "crop.box",
                f"crop: the box {sides} is not a part of the picture: left < right, top < bottom, all from 0 to 1.",
                "Draw it again.",
                "crop",
            )

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in an upright picture of this size; at least one pixel wide and high."""
        left, top = min(round(self.left * width), width - 1), min(round(self.top * height), height - 1)
        return left, top, max(left + 1, round(self.right * width)), max(top + 1, round(self.bottom * height))


def read_crops(workspace: Workspace, folder: Path) -> dict[str, Box]:
    """The crop boxes of the folder's pictures, by the path within it (``10_cat/a.png``).

    Entries that are not boxes are left out: the pictures are then as if never cropped.
    """
    try:
        stored = read_json(_path(workspace, folder))
    except (OSError, ValueError):
        return {}
    boxes = {name: _box(sides) for name, sides in stored.items()} if isinstance(stored, dict) else {}
    return {name: box for name, box in boxes.items() if box is not None}


def write_crop(workspace: Workspace, folder: Path, name: str, box: Box | None) -> None:
    """Keep the crop box of one picture; None forgets it. ``name`` is its path within ``folder``."""
    path = _path(workspace, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".crops.lock"), timeout=30):
        boxes = read_crops(workspace, folder)
        if box is None:
            boxes.pop(name, None)
        else:
            boxes[name] = box
        write_json(path, {name: [box.left, box.top, box.right, box.bottom] for name, box in sorted(boxes.items())})


def _path(workspace: Workspace, folder: Path) -> Path:
    return edits_dir(workspace, folder) / "crops.json"


def _box(sides: Any) -> Box | None:
    try:
        return Box(*map(float, sides))
    except (TypeError, ValueError, UserError):
        return None
