"""Lists of tags as taggers bring them, with Danbooru's numbers for categories. Never torch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from trainer.captioners.tagging import Category, Tag
from trainer.errors import UserError
from trainer.yaml_texts import load_yaml

_NUMBERED: dict[str, Category] = {
    "0": "general",
    "1": "style",
    "3": "copyright",
    "4": "character",
    "5": "meta",
    "9": "rating",
}


def read_tags(file: Path) -> list[Tag]:
    """The tags of a ``selected_tags.csv`` with the columns name, category and, if at all, ips (series of a character).

    Raises:
        UserError: the list is missing or of another form.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return [_tag(row) for row in csv.DictReader(lines)]
    except FileNotFoundError as error:
        raise broken_list(file, "it is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise broken_list(file, "it has another form") from error


def read_thresholds(file: Path) -> dict[Category, float]:
    """A ``thresholds.csv`` with the columns category and threshold. Raises UserError for another form."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return {_NUMBERED[row["category"].strip()]: float(row["threshold"]) for row in csv.DictReader(lines)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise broken_list(file, "it has another form") from error


def broken_list(file: Path, reason: str) -> UserError:
    """What is told of a list that cannot be used."""
    message = f"The tagger's list of tags, {file}, cannot be used: {reason}."
    return UserError("caption.no_tags", message, "Download the model again, with all its files.", "model")


def _tag(row: dict[str, Any]) -> Tag:
    series = row.get("ips") or "[]"
    names = load_yaml(series) if series != "[]" else []  # quotes of either kind are found there
    return Tag(row["name"], _NUMBERED[row["category"].strip()], tuple(map(str, names)))
