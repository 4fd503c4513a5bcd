"""Names that come from elsewhere, made to work as those of files on every system."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from trainer.errors import Problem

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\\/\u200e\u200f\u202a-\u202e\u2066-\u2069]')
"""Also what turns the direction of writing: with it ``gnp.exe`` looks like a picture's name."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
_LONGEST_BYTES = 180  # of 255: room for what is put around the names of files that are being written
_LONGEST_NAME = 80
_DEEPEST = 16


def safe_path(name: str) -> PurePosixPath | None:
    """The relative path a file called ``name`` goes to; None when it leads out of the folder or is nested absurdly.

    Signs that some system does not allow become ``_``, accents are put together, long names are cut.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not 1 <= len(path.parts) <= _DEEPEST:
        return None
    return PurePosixPath(*map(_safe_part, path.parts))


def name_problem(name: str, field: str) -> Problem | None:
    """What speaks against ``name`` as that of a new folder; None when nothing does."""
    if name and name == _safe_part(name) and not name.startswith(".") and len(name) <= _LONGEST_NAME:
        return None
    return Problem(
        "dataset.name",
        f"The name {name!r} does not work as a folder's name.",
        'Use letters, numbers, spaces, - and _; no / \\ : * ? " < > |, no dot in front or at the end.',
        field,
    )


def _safe_part(part: str) -> str:
    text = unicodedata.normalize("NFC", part.encode("utf-8", "replace").decode("utf-8"))
    text = _UNSAFE.sub("_", text).rstrip(". ").lstrip(" ")
    if _RESERVED.match(text):
        text = f"_{text}"
    ending = PurePosixPath(text).suffix
    stem = text[: len(text) - len(ending)].encode("utf-8")
    room = max(1, _LONGEST_BYTES - len(ending.encode("utf-8")))
    return (stem[:room].decode("utf-8", "ignore") + ending)[:_LONGEST_BYTES] or "_"
