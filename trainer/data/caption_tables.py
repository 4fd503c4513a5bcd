"""Captions kept in one file for many pictures: diffusers' ``metadata.jsonl``/``.csv`` and kohya's metadata JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data.caption_files import decode
from trainer.data.image_files import is_picture_file
from trainer.errors import Problem

TEXT_COLUMNS = ("text", "caption", "prompt")
"""Columns that hold captions where none is named, in the order in which they are looked for."""

_KOHYA_KEYS = ("caption", "tags")


@dataclass(frozen=True)
class CaptionTables:
    """Captions by picture path, and what was wrong with the files."""

    captions: dict[Path, str] = field(default_factory=dict)
    warnings: list[Problem] = field(default_factory=list)


def read_caption_tables(folder: Path, column: str | None = None, elsewhere: Path | None = None) -> CaptionTables:
    """Read all caption tables under ``folder``. A broken one counts up to the fault, with a warning.

    Args:
        folder: tables in it and below it are read.
        column: what holds the captions; without it ``text``, ``caption`` or ``prompt``, and kohya's caption and tags
            together.
        elsewhere: one more table, which lies anywhere and whose names are those of pictures in ``folder``.
    """
    tables = read_table_files(_table_files(folder), column)
    if elsewhere is not None:
        _read(elsewhere, folder, column, tables)
    return tables


def read_table_files(files: Iterable[Path], column: str | None = None) -> CaptionTables:
    """Read these caption tables, each about the pictures beside it."""
    tables = CaptionTables()
    for path in files:
        _read(path, path.parent, column, tables)
    return tables


def is_caption_table(name: str) -> bool:
    """Whether a file of this name is read as a caption table."""
    return name in ("metadata.jsonl", "metadata.csv") or (name.startswith("meta") and name.endswith(".json"))


def _table_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if is_caption_table(name))


def _read(path: Path, folder: Path, column: str | None, tables: CaptionTables) -> None:
    """Add what the table at ``path`` says of the pictures in ``folder``."""
    reader = {".jsonl": _read_jsonl, ".csv": _read_csv}.get(path.suffix.lower(), _read_kohya)
    try:
        tables.captions.update(reader(path, folder, column))
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        message = f"{path} cannot be read to its end: {error}."
        tables.warnings.append(Problem("dataset.caption_table", message, "Correct or remove the file."))


def _read_jsonl(path: Path, folder: Path, column: str | None) -> Iterator[tuple[Path, str]]:
    for number, line in enumerate(
        _text(path).split("\n"), start=1
    ):  # splitlines splits at signs that JSON has in texts
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is not JSON") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        yield from _row(folder, row, f"line {number}", column)


def _read_csv(path: Path, folder: Path, column: str | None) -> Iterator[tuple[Path, str]]:
    for number, row in enumerate(csv.DictReader(io.StringIO(_text(path))), start=2):
        yield from _row(folder, row, f"line {number}", column)


def _row(folder: Path, row: dict[str, Any], where: str, column: str | None) -> Iterator[tuple[Path, str]]:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where} has no file_name")
    if column is not None and column not in row:
        raise ValueError(f"{where} has no column {column!r}, only {', '.join(map(repr, row))}")
    columns = TEXT_COLUMNS if column is None else (column,)
    text = next((row[name] for name in columns if isinstance(row.get(name), str)), None)
    if text is not None:
        yield folder / name, text


def _read_kohya(path: Path, folder: Path, column: str | None) -> Iterator[tuple[Path, str]]:
    """``{path or stem: {"caption": ..., "tags": ...}}``; both together are joined by a comma."""
    table = json.loads(_text(path))
    if not isinstance(table, dict):
        raise ValueError("it is not a mapping of pictures to captions")
    pictures = {path.with_suffix(""): path for path in folder.rglob("*") if is_picture_file(path)}
    for name, entry in table.items():
        if not isinstance(entry, dict):
            continue
        keys = _KOHYA_KEYS if column is None else (column,)
        texts = [entry[key] for key in keys if isinstance(entry.get(key), str) and entry[key]]
        picture = folder / name
        if not is_picture_file(picture):  # kohya leaves the ending away, and often the folder
            picture = pictures.get(picture) or pictures.get(folder / picture.name, picture)
        if texts:
            yield picture, ", ".join(texts)


def _text(path: Path) -> str:
    return decode(path.read_bytes()).text
