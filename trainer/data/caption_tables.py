"""Captions kept in one file for many pictures: diffusers' ``metadata.jsonl``/``.csv`` and kohya's metadata JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data.caption_files import decode
from trainer.data.image_files import is_picture_file
from trainer.errors import Problem

_TEXT_COLUMNS = ("text", "caption", "prompt")


@dataclass(frozen=True)
class CaptionTables:
    """Captions by picture path, and what was wrong with the files."""

    captions: dict[Path, str] = field(default_factory=dict)
    warnings: list[Problem] = field(default_factory=list)


def read_caption_tables(folder: Path) -> CaptionTables:
    """Read all caption tables under ``folder``. A broken one counts up to the fault, with a warning."""
    tables = CaptionTables()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            reader = _reader(name)
            if reader is None:
                continue
            path = Path(parent, name)
            try:
                tables.captions.update(reader(path, names))
            except (OSError, ValueError, csv.Error) as error:
                message = f"{path} cannot be read to its end: {error}."
                tables.warnings.append(Problem("dataset.caption_table", message, "Correct or remove the file."))
    return tables


def _reader(name: str) -> Callable[[Path, list[str]], Iterator[tuple[Path, str]]] | None:
    if name == "metadata.jsonl":
        return _read_jsonl
    if name == "metadata.csv":
        return _read_csv
    return _read_kohya if name.startswith("meta") and name.endswith(".json") else None


def _read_jsonl(path: Path, beside: list[str]) -> Iterator[tuple[Path, str]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is not JSON") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        yield from _row(path, row, f"line {number}")


def _read_csv(path: Path, beside: list[str]) -> Iterator[tuple[Path, str]]:
    for number, row in enumerate(csv.DictReader(io.StringIO(_text(path))), start=2):
        yield from _row(path, row, f"line {number}")


def _row(path: Path, row: dict[str, Any], where: str) -> Iterator[tuple[Path, str]]:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where} has no file_name")
    text = next((row[column] for column in _TEXT_COLUMNS if isinstance(row.get(column), str)), None)
    if text is not None:
        yield path.parent / name, text


def _read_kohya(path: Path, beside: list[str]) -> Iterator[tuple[Path, str]]:
    """``{path or stem: {"caption": ..., "tags": ...}}``; both together are joined by a comma."""
    table = json.loads(_text(path))
    if not isinstance(table, dict):
        raise ValueError("it is not a mapping of pictures to captions")
    by_stem = {Path(name).stem: path.parent / name for name in beside if is_picture_file(Path(name))}
    for name, entry in table.items():
        if not isinstance(entry, dict):
            continue
        texts = [entry[key] for key in ("caption", "tags") if isinstance(entry.get(key), str) and entry[key]]
        picture = path.parent / name
        if not is_picture_file(picture):  # kohya leaves the ending away
            picture = by_stem.get(picture.name, picture)
        if texts:
            yield picture, ", ".join(texts)


def _text(path: Path) -> str:
    return decode(path.read_bytes()).text
