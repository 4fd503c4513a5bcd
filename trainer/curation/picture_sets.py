"""Pictures with what belongs to them (captions, repeats, masks), as read from a folder and laid out in a new one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.config import DatasetSettings, Source
from trainer.data.caption_files import CaptionFile, read_caption_file
from trainer.data.folders import Collection, Picture, collect_source, folder_says
from trainer.errors import Problem, UserError

MASKS = "masks"
"""The folder beside the pictures that masks are written to."""
IMAGES = "images"
"""The folder of the pictures where there are masks beside it; without masks they need none."""
_NAMED = 3


def read_set(folder: Path, masks: Path | None = None, names: Iterable[str] | None = None) -> Collection:
    """Pictures of a folder as the trainer reads them, with their masks from another folder.

    Args:
        folder: the folder of pictures.
        masks: the folder of masks; None for none.
        names: of the pictures that are meant, relative to the folder; None for all.

    Raises UserError when there is no such folder, no picture in it that can be used, or names that are not in it.
    """
    source = Source(path=str(folder), mask_path=str(masks) if masks else None)
    collection, problem = collect_source(0, source, DatasetSettings().caption_extension)
    if problem is not None:
        message = problem.message.removeprefix(f"{problem.field}: ")
        raise UserError(problem.code, message[:1].upper() + message[1:], problem.hint, "folder")
    return collection if names is None else _only(collection, folder, dict.fromkeys(names))


def _only(collection: Collection, folder: Path, names: Mapping[str, Any]) -> Collection:
    """The named pictures. Raises UserError when some are not there, or none is left that can be used."""
    pictures = {path_within(picture).as_posix(): picture for picture in collection.pictures}
    skipped = {name_within(each.path, folder): each for each in collection.skipped}
    if unknown := [name for name in names if name not in pictures and name not in skipped]:
        raise unknown_names(unknown)
    chosen = [picture for name, picture in pictures.items() if name in names]
    if not chosen:
        raise UserError("dataset.no_pictures", "None of the named pictures can be used.", "Name others.", "names")
    return replace(collection, pictures=chosen, skipped=[each for name, each in skipped.items() if name in names])


def unknown_names(names: Sequence[str]) -> UserError:
    """What to raise where pictures are named that are not in the folder."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    message = f"{len(names)} of the named pictures are not in the folder: {', '.join(names[:_NAMED])}{more}."
    return UserError("dataset.unknown_names", message, "Names are relative to the folder.", "names")


def table_notes(collection: Collection) -> list[str]:
    """What was wrong with caption tables: captions behind the fault are missing."""
    return [problem.message for problem in collection.warnings if problem.code == "dataset.caption_table"]


def path_within(picture: Picture) -> PurePosixPath:
    """The picture's path within the folder it was read from."""
    return PurePosixPath(picture.key.partition("/")[2])


def name_within(path: Path, folder: Path) -> str:
    """A file's path within the folder as people know it; its name alone where it was unpacked from a data set."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def own_caption_bytes(picture: Picture) -> bytes | None:
    """The caption as a UTF-8 file, every line of it; None where it has none but its folder's name."""
    if picture.caption_path is not None:
        file = read_caption_file(picture.caption_path)
        return (file or CaptionFile(picture.caption)).to_bytes()
    if not picture.has_caption or picture.caption == folder_says(path_within(picture))[1]:
        return None
    return CaptionFile(picture.caption).to_bytes()


def free_paths(wanted: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The paths, with a number behind the stem where another picture of the folder has the same one.

    Captions and masks are found by the stem, so ``a.png`` and ``a.jpg`` side by side would share theirs. Letters that
    differ in case only, or in how accents are put together, count as equal: some file systems take them so.
    """
    taken: set[str] = set()
    paths = []
    for path in wanted:
        stem, number = path.stem, 1
        while (key := comparable(str(path.with_name(stem)))) in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(key)
        paths.append(path.with_name(stem + path.suffix))
    return paths


def comparable(name: str) -> str:
    """Names that are equal on some file system have the same of these."""
    return unicodedata.normalize("NFC", name).casefold()


def out_problems(out: Path, sources: Iterable[Path]) -> list[Problem]:
    """What speaks against making ``out``: something of that name, or that it lies in, or holds, what is read."""
    place = out.resolve()
    for source in (each.resolve() for each in sources):
        if place.is_relative_to(source) or source.is_relative_to(place):
            message = f"out: {out} is, or lies within, or holds what is read ({source})."
            return [Problem("out.input", message, "Choose another place.", "out")]
    if out.exists() or out.is_symlink():
        hint = "Choose another name, or remove it yourself: nothing is overwritten."
        return [Problem("out.exists", f"out: {out} exists already.", hint, "out")]
    return []


def count_of(number: int, what: str) -> str:
    """``1 picture``, ``2 pictures``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
