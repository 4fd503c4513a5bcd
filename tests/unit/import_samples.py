"""Settings files of other trainers, and what every import has to keep to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.imports.base import Imported, Line, Report
from trainer.imports.draft import at
from trainer.imports.reading import import_path

FOLDER = Path(__file__).resolve().parents[1] / "data" / "imports"


def files_of(kind: str) -> list[Path]:
    """The sample files of a kind."""
    return sorted(path for path in (FOLDER / kind).iterdir() if path.is_file())


def imported(kind: str, name: str) -> Imported:
    """A sample, by the name of its file without the ending."""
    (path,) = (path for path in files_of(kind) if path.stem == name)
    return import_path(path)


def check(kind: str, name: str, expected: dict[str, Any]) -> Imported:
    """Import a sample and compare settings by their dotted names; a default has to be named to be checked."""
    found = imported(kind, name)
    values = found.config.model_dump(mode="json")
    assert {setting: at(values, setting) for setting in expected} == expected
    return found


def told(report: Report) -> dict[str, list[Line]]:
    """Every line of a report by the file's key."""
    lines: dict[str, list[Line]] = {}
    for line in [*report.mapped, *report.guessed, *report.no_equivalent, *report.no_effect]:
        lines.setdefault(line.source, []).append(line)
    return lines


def note_of(lines: list[Line], source: str) -> str:
    """The note of the line about a key; fails where there is none."""
    return next(line.note for line in lines if line.source == source)


def is_valid(config: Config) -> bool:
    """Whether a config reads back as it is."""
    return Config.model_validate(json.loads(config.model_dump_json())) == config
