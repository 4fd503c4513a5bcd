"""What goes along when a picture is moved or renamed: its caption files and its mask."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from trainer.curation.mask_files import mask_name
from trainer.data.image_files import PICTURE_ENDINGS
from trainer.data.own_captions import CAPTION_ENDINGS


def companions(folder: Path, name: str, *, target: str | None = None) -> list[tuple[str, str]]:
    """Caption files and mask that belong to the picture ``name`` alone, each with its name beside ``target``.

    Files that another picture of the same stem uses too stay where they are.
    """
    picture, goal = PurePosixPath(name), PurePosixPath(target or name)
    if shares_stem(folder, name):
        return []
    pairs = [(picture.with_suffix(ending), goal.with_suffix(ending)) for ending in CAPTION_ENDINGS]
    named = [(str(old), str(new)) for old, new in pairs] + [(mask_name(name), mask_name(str(goal)))]
    return [(old, new) for old, new in named if (folder / old).is_file()]


def shares_stem(folder: Path, name: str) -> bool:
    """Whether another picture differs from this one in its ending only."""
    path = folder / name
    return any(
        other.name != path.name and other.stem == path.stem and other.suffix.lower() in PICTURE_ENDINGS
        for other in path.parent.iterdir()
    )


def free_name(folder: Path, name: str) -> str:
    """``name``, or with a number behind it, so that neither a file, a caption nor a mask has it."""
    wanted = PurePosixPath(name)
    endings = (*CAPTION_ENDINGS, *sorted(PICTURE_ENDINGS))
    number = 1
    while True:
        tried = wanted if number == 1 else wanted.with_name(f"{wanted.stem}_{number}{wanted.suffix}")
        taken = any((folder / tried.with_suffix(ending)).exists() for ending in endings)
        if not taken and not (folder / mask_name(str(tried))).exists():
            return str(tried)
        number += 1
