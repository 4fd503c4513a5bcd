"""Finding the pictures of a dataset and their captions: plain folders, kohya's and diffusers' layouts. Never torch.

Only picture headers are read here, so that thousands of files take seconds.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from trainer.config import DatasetSettings, Source
from trainer.data.caption_files import caption_path, read_caption
from trainer.data.caption_tables import read_caption_tables
from trainer.data.datasets_library import is_library_dataset, unpacked_dataset
from trainer.data.image_files import PICTURE_ENDINGS, PICTURE_ERRORS, is_picture_file, read_size, why_unreadable
from trainer.errors import Problem, UserError
from trainer.files import home_path

_REPEATS_FOLDER = re.compile(r"(\d+)_(.+)")
_OTHER_CAPTION_EXTENSION = ".caption"


@dataclass(frozen=True)
class Picture:
    """One picture file as training sees it.

    Attributes:
        path: the file.
        source: number of its source in ``dataset.sources``; None for a picture of the validation folder.
        key: the source's number and the path within it; the same wherever the dataset lies.
        caption: raw, with every line; empty where there is none.
        caption_path: the caption file beside the picture; None where the caption comes from elsewhere or is missing.
        has_caption: False where neither a file, a table nor a class prompt gave one.
        repeats: times it is seen in one epoch.
        is_regularization: whether it shows what the model should keep doing.
        width: pixels, after EXIF rotation.
        height: pixels, after EXIF rotation.
        mask: the file that shows which parts count; None where there is none.
    """

    path: Path
    source: int | None
    key: str
    caption: str
    caption_path: Path | None
    has_caption: bool
    repeats: int
    is_regularization: bool
    width: int
    height: int
    mask: Path | None = None


@dataclass(frozen=True)
class SkippedPicture:
    """A picture that is not trained on, and why, as a clause: ``it is cut off before its end``."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Collection:
    """What the sources of a dataset hold. ``warnings`` are about caption tables and folders, not about pictures."""

    pictures: list[Picture] = field(default_factory=list)
    skipped: list[SkippedPicture] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def collect(settings: DatasetSettings) -> Collection:
    """Find every picture of every source, in a fixed order.

    Pictures that cannot be used are listed under ``skipped``. Raises UserError, one problem per source, for folders
    that are missing or without a usable picture (codes ``dataset.no_sources``, ``dataset.missing_folder``,
    ``dataset.no_pictures``).
    """
    if not settings.sources:
        raise UserError(
            "dataset.no_sources",
            "dataset.sources: no folder is given.",
            "Add a folder with pictures.",
            "dataset.sources",
        )
    collection = Collection()
    problems: list[Problem] = []
    for number, source in enumerate(settings.sources):
        found, problem = collect_source(number, source, settings.caption_extension)
        if problem is not None:
            problems.append(problem)
        collection.pictures.extend(found.pictures)
        collection.skipped.extend(found.skipped)
        collection.warnings.extend(found.warnings)
    if problems:
        raise UserError.many(problems)
    return collection


def picture_files(folder: Path) -> list[Path]:
    """All picture files under ``folder``, sorted; hidden files and folders are left out."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        found.extend(path for name in names if is_picture_file(path := Path(parent, name)))
    return sorted(found)


def repeats_folder(name: str) -> tuple[int, str] | None:
    """``10_name`` as (10, "name"): kohya's way to say repeats and class prompt; None for any other folder name."""
    match = _REPEATS_FOLDER.fullmatch(name)
    return (int(match[1]), match[2].strip()) if match else None


def collect_source(number: int, source: Source, caption_extension: str) -> tuple[Collection, Problem | None]:
    """One source as ``collect`` sees it; instead of raising, what is wrong with it as a whole is given beside it."""
    name, folder = f"dataset.sources.{number}.path", home_path(source.path)
    found = Collection()
    column = source.caption_column
    if is_library_dataset(source.path):
        try:
            folder, column = unpacked_dataset(source, f"dataset.sources.{number}"), None
        except UserError as error:
            return found, error.problems[0]
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.is_file() else "does not exist"
        hint = "Choose the folder that holds the pictures."
        return found, Problem("dataset.missing_folder", f"{name}: the folder {source.path} {what}.", hint, name)
    elsewhere = home_path(source.metadata_file) if source.metadata_file else None
    if elsewhere is not None and not elsewhere.is_file():
        place = f"dataset.sources.{number}.metadata_file"
        message = f"{place}: there is no file {source.metadata_file}."
        return found, Problem("dataset.missing_metadata", message, "Choose the table, or leave this empty.", place)
    masks = home_path(source.mask_path) if source.mask_path else None
    if masks is not None and not masks.is_dir():
        place = f"dataset.sources.{number}.mask_path"
        message = f"{place}: there is no folder {source.mask_path}."
        return found, Problem("dataset.missing_masks", message, "Choose the folder that holds the masks.", place)
    files = [path for path in picture_files(folder) if masks is None or not _lies_in(path, masks)]
    tables = read_caption_tables(folder, column, elsewhere)
    found.warnings.extend(tables.warnings)
    for path in files:
        _add_picture(
            found, path, path.relative_to(folder), number, source, tables.captions.get(path), caption_extension
        )
    if masks is not None:
        _add_masks(found, masks)
    return found, None if found.pictures else _no_pictures(name, source, found.skipped)


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _add_masks(found: Collection, folder: Path) -> None:
    """Give each picture the mask with its path, endings apart, or the only one with its stem."""
    by_path: dict[str, Path] = {}
    by_stem: dict[str, list[Path]] = {}
    for path in picture_files(folder):
        by_path[path.relative_to(folder).with_suffix("").as_posix()] = path
        by_stem.setdefault(path.stem, []).append(path)
    missing = []
    for number, picture in enumerate(found.pictures):
        inside = Path(picture.key.partition("/")[2]).with_suffix("").as_posix()
        same_stem = by_stem.get(picture.path.stem, [])
        mask = by_path.get(inside) or (same_stem[0] if len(same_stem) == 1 else None)
        found.pictures[number] = replace(picture, mask=mask)
        if mask is None:
            missing.append(picture.path.name)
    if missing:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        count = f"{len(missing)} of {len(found.pictures)} pictures"
        message = f"{count} have no mask in {folder}, so all of them counts: {named}."
        hint = "A mask has its picture's name; white counts, black does not."
        found.warnings.append(Problem("dataset.no_mask", message, hint, "dataset.sources"))


def _add_picture(
    found: Collection,
    path: Path,
    inside: Path,
    number: int,
    source: Source,
    tabled: str | None,
    caption_extension: str,
) -> None:
    repeats, class_prompt = folder_says(inside)
    if repeats == 0:
        found.skipped.append(SkippedPicture(path, "its folder's name asks for 0 repeats"))
        return
    try:
        width, height = read_size(path)
        caption_file, text = _caption_file(path, caption_extension)
    except PICTURE_ERRORS as error:
        found.skipped.append(SkippedPicture(path, why_unreadable(error)))
        return
    fallback = source.class_prompt if source.class_prompt is not None else class_prompt
    caption = next((given for given in (text, tabled, fallback) if given is not None), None)
    found.pictures.append(
        Picture(
            path=path,
            source=number,
            key=f"{number}/{inside.as_posix()}",
            caption=caption or "",
            caption_path=caption_file,
            has_caption=caption is not None,
            repeats=source.repeats * repeats,
            is_regularization=source.is_regularization,
            width=width,
            height=height,
        )
    )


def folder_says(inside: PurePath) -> tuple[int, str | None]:
    """Repeats and class prompt of the nearest ``N_name`` folder around a picture, within its source."""
    for name in reversed(inside.parts[:-1]):
        found = repeats_folder(name)
        if found is not None:
            return found
    return 1, None


def _caption_file(picture: Path, extension: str) -> tuple[Path | None, str | None]:
    for ending in dict.fromkeys((extension, _OTHER_CAPTION_EXTENSION)):
        path = caption_path(picture, ending)
        text = read_caption(path)
        if text is not None:
            return path, text
    return None, None


def _no_pictures(name: str, source: Source, skipped: list[SkippedPicture]) -> Problem:
    kinds = " ".join(sorted(ending[1:] for ending in PICTURE_ENDINGS))
    if not skipped:
        message = f"{name}: the folder {source.path} holds no pictures ({kinds})."
        return Problem("dataset.no_pictures", message, "Put pictures into it, or choose another folder.", name)
    named = ", ".join(f"{picture.path.name} ({picture.reason})" for picture in skipped[:3])
    message = f"{name}: none of the {len(skipped)} pictures in {source.path} can be used: {named}."
    return Problem("dataset.no_pictures", message, "Replace them, or choose another folder.", name)
