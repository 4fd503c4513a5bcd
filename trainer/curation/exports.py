"""A folder of pictures written anew as other programs want it: kohya's folders, Hugging Face's imagefolder, CSV, plain.

Pictures and masks go along byte for byte; captions become UTF-8. kohya's layout is that of sd-scripts: folders
``N_name`` of pictures, not nested, regularization pictures apart. ``imagefolder`` is that of the ``datasets`` library.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol, get_args

from trainer.curation.picture_sets import (
    IMAGES,
    MASKS,
    count_of,
    free_paths,
    out_problems,
    own_caption_bytes,
    path_within,
    read_set,
    table_notes,
)
from trainer.curation.safe_names import name_problem
from trainer.data.folders import Collection, Picture, SkippedPicture, folder_says
from trainer.errors import Problem, UserError
from trainer.outputs import new_output, space_problems
from trainer.runs.events import EventSink

Format = Literal["kohya", "imagefolder", "csv", "plain"]
FORMATS: tuple[Format, ...] = get_args(Format)
TABLES: dict[Format, str] = {"imagefolder": "metadata.jsonl", "csv": "metadata.csv"}

KOHYA_PICTURES, KOHYA_REGULARIZATION = "img", "reg"
_WHOLE_SPLIT = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: "**"
---
"""
"""Told to the datasets library, which otherwise takes pictures with ``test`` in their name for a split of their own."""


@dataclass(frozen=True)
class ExportOptions:
    """What is written.

    Attributes:
        to: the layout.
        names: of the pictures that are meant, within the folder; None for all.
        masks: folder of masks; None for none.
        repeats: kohya's number in front of the folder's name; None for what each picture has now.
        concept: kohya's trigger word, first in the folder's name.
        class_word: kohya's class, behind it. Both empty: the folder's name as it is.
        regularization: kohya's folder of pictures of the class as it should stay.
    """

    to: Format
    names: Sequence[str] | None = None
    masks: Path | None = None
    repeats: int | None = None
    concept: str = ""
    class_word: str = ""
    regularization: Path | None = None


@dataclass
class Export:
    """What was written. ``pictures_dir`` and ``masks_dir`` are within ``out``; notes are sentences for the user."""

    out: Path
    pictures_dir: str
    masks_dir: str | None = None
    pictures: int = 0
    captions: int = 0
    masks: int = 0
    regularization: int = 0
    skipped: list[SkippedPicture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Placed:
    """A picture and its path in the export."""

    picture: Picture
    path: PurePosixPath
    mask: PurePosixPath | None
    is_regularization: bool = False


class _Sink(Protocol):
    def add_file(self, source: Path, name: PurePosixPath) -> None: ...

    def add_bytes(self, data: bytes, name: PurePosixPath) -> None: ...


def export(folder: Path, out: Path, options: ExportOptions, *, zipped: bool, events: EventSink) -> Export:
    """Write the pictures of ``folder`` to the new folder or zip file ``out``; all of it or nothing.

    Raises UserError, all problems at once, when something is wrong with the folders or names.
    """
    sources = [folder, *(each for each in (options.masks, options.regularization) if each is not None)]
    problems = [*option_problems(options), *out_problems(out, sources)]
    if problems:
        raise UserError.many(problems)
    own = read_set(folder, options.masks, options.names)
    prior = read_set(options.regularization) if options.regularization else Collection()
    placed = _placed(own.pictures, folder, options) + _placed_regularization(prior.pictures, options)
    if short := space_problems(out, sum(_size(each) for each in placed)):
        raise UserError.many(short)
    result = _result(out, placed, [*own.skipped, *prior.skipped], options)
    result.notes += table_notes(own)
    with _sink(out, zipped=zipped) as sink:
        for done, each in enumerate(placed):
            events.emit("progress", what="writing pictures", done=done, total=len(placed))
            _write(each, sink, options, result)
        for name, text in _tables(placed, options):
            sink.add_bytes(text.encode("utf-8"), PurePosixPath(name))
    events.emit("progress", what="writing pictures", done=len(placed), total=len(placed))
    return result


def option_problems(options: ExportOptions) -> list[Problem]:
    """What is wrong with the options themselves."""
    problems = []
    if options.repeats is not None and not 1 <= options.repeats <= 10_000:
        message = f"repeats: {options.repeats} is not from 1 to 10000."
        problems.append(Problem("export.repeats", message, "1 is usual.", "repeats"))
    name = f"{options.concept.strip()} {options.class_word.strip()}".strip()
    if name and (problem := name_problem(name, "concept")):
        problems.append(problem)
    kohya_only = {"repeats": options.repeats, "concept": name, "regularization": options.regularization}
    given = [what for what, value in kohya_only.items() if value]
    if given and options.to != "kohya":
        message = f"{', '.join(given)}: only kohya's layout has a place for it, not {options.to}."
        problems.append(Problem("export.kohya_only", message, "Leave it out, or export to kohya.", given[0]))
    return problems


def _placed(pictures: list[Picture], folder: Path, options: ExportOptions) -> list[_Placed]:
    has_masks = any(picture.mask for picture in pictures)
    if options.to == "kohya":
        root = PurePosixPath(KOHYA_PICTURES)
        wanted = [_kohya_path(picture, folder.name, options) for picture in pictures]
    else:
        root = PurePosixPath(IMAGES if has_masks else ".")
        wanted = [path_within(picture) for picture in pictures]
    # A table's folder is what is read, with masks at the same paths below theirs; elsewhere it is the pictures' own.
    mask_root = MASKS / root if options.to in TABLES else PurePosixPath(MASKS)
    return [
        _Placed(picture, root / path, mask_root / path.with_suffix(picture.mask.suffix) if picture.mask else None)
        for picture, path in zip(pictures, free_paths(wanted), strict=True)
    ]


def _placed_regularization(pictures: list[Picture], options: ExportOptions) -> list[_Placed]:
    named = ExportOptions("kohya", class_word=options.class_word)
    wanted = [_kohya_path(picture, KOHYA_REGULARIZATION, named) for picture in pictures]
    return [
        _Placed(picture, KOHYA_REGULARIZATION / path, None, is_regularization=True)
        for picture, path in zip(pictures, free_paths(wanted), strict=True)
    ]


def _kohya_path(picture: Picture, fallback: str, options: ExportOptions) -> PurePosixPath:
    """``N_name/picture``: sd-scripts does not look into folders below."""
    inside = path_within(picture)
    own_name = folder_says(inside)[1] or fallback
    name = f"{options.concept.strip()} {options.class_word.strip()}".strip() or own_name
    return PurePosixPath(f"{options.repeats or picture.repeats}_{name}", inside.name)


def _result(out: Path, placed: list[_Placed], skipped: list[SkippedPicture], options: ExportOptions) -> Export:
    has_masks = any(each.mask for each in placed)
    apart = KOHYA_PICTURES if options.to == "kohya" else IMAGES if has_masks and options.to == "plain" else "."
    result = Export(out, apart, MASKS if has_masks else None, skipped=skipped)
    renamed = sum(each.path.name != path_within(each.picture).name for each in placed)
    if renamed:
        result.notes.append(f"{count_of(renamed, 'picture')} got a number behind the name: it was there twice.")
    unmarked = sum(not each.picture.has_caption and not each.is_regularization for each in placed)
    if unmarked and options.to == "kohya":
        result.notes.append(f"{count_of(unmarked, 'picture')} without a caption: the folder's name is taken for it.")
    several = sum("\n" in each.picture.caption.strip() for each in placed)
    if several and options.to == "kohya":
        result.notes.append(
            f"{count_of(several, 'caption')} of several lines: all lines are written, but kohya's trainers read "
            "the first one only, unless enable_wildcard is on."
        )
    return result


def _size(each: _Placed) -> int:
    return each.picture.path.stat().st_size + (each.picture.mask.stat().st_size if each.picture.mask else 0)


def _write(each: _Placed, sink: _Sink, options: ExportOptions, result: Export) -> None:
    sink.add_file(each.picture.path, each.path)
    if each.is_regularization:
        result.regularization += 1
    else:
        result.pictures += 1
    if each.mask is not None and each.picture.mask is not None:
        sink.add_file(each.picture.mask, each.mask)
        result.masks += 1
    if options.to in TABLES:
        result.captions += each.picture.has_caption
        return
    caption = own_caption_bytes(each.picture)
    if caption is not None:
        result.captions += 1
        sink.add_bytes(caption, each.path.with_suffix(".txt"))


def _tables(placed: list[_Placed], options: ExportOptions) -> Iterator[tuple[str, str]]:
    if options.to == "imagefolder":
        yield TABLES["imagefolder"], "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in map(_row, placed))
    elif options.to == "csv":
        rows = [_row(each) for each in placed]
        columns = [name for name in ("file_name", "mask_file_name", "text") if any(name in row for row in rows)]
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:  # a row without a caption ends before it: an empty one would be an empty caption
            writer.writerow([row.get(name, "") for name in columns if name != "text" or name in row])
        yield TABLES["csv"], text.getvalue()
    if options.to in TABLES:
        yield "README.md", _WHOLE_SPLIT


def _row(each: _Placed) -> dict[str, str]:
    row = {"file_name": each.path.as_posix()}
    if each.mask is not None:
        row["mask_file_name"] = each.mask.as_posix()
    if each.picture.has_caption:
        row["text"] = each.picture.caption
    return row


@contextmanager
def _sink(out: Path, *, zipped: bool) -> Iterator[_Sink]:
    with new_output(out) as place:
        if zipped:
            with zipfile.ZipFile(place, "w", strict_timestamps=False) as archive:
                yield _ZipSink(archive)
        else:
            place.mkdir()
            yield _FolderSink(place)
        if out.exists():  # made meanwhile by somebody else
            raise UserError.many(out_problems(out, []))


class _FolderSink:
    def __init__(self, root: Path) -> None:
        self._root = root

    def add_file(self, source: Path, name: PurePosixPath) -> None:
        shutil.copyfile(source, self._made(name))

    def add_bytes(self, data: bytes, name: PurePosixPath) -> None:
        self._made(name).write_bytes(data)

    def _made(self, name: PurePosixPath) -> Path:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


class _ZipSink:
    """Pictures are compressed already; packing them again would only take time."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def add_file(self, source: Path, name: PurePosixPath) -> None:
        self._archive.write(source, name.as_posix(), zipfile.ZIP_STORED)

    def add_bytes(self, data: bytes, name: PurePosixPath) -> None:
        self._archive.writestr(name.as_posix(), data, zipfile.ZIP_DEFLATED)
