"""The caption that a picture itself has, in a file beside it or in a table, and where an edited one is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.data.caption_files import caption_path, read_caption
from trainer.data.caption_tables import CaptionTables

CAPTION_ENDINGS = (".txt", ".caption")
"""Endings of caption files, in the order in which they are looked for."""


@dataclass(frozen=True)
class OwnCaption:
    """A picture's caption as it lies on disk.

    Attributes:
        text: every line; empty where there is no caption.
        file: the caption file there is, or the one that a new caption goes into.
        stored: the file's text; None where there is no file, so that the caption comes from a table or is missing.
    """

    text: str
    file: Path
    stored: str | None


def own_caption(picture: Path, tables: CaptionTables) -> OwnCaption:
    """The picture's caption. A caption file wins over a table. Raises OSError when a file cannot be read."""
    for ending in CAPTION_ENDINGS:
        file = caption_path(picture, ending)
        stored = read_caption(file)
        if stored is not None:
            return OwnCaption(stored, file, stored)
    return OwnCaption(tables.captions.get(picture, ""), caption_path(picture, CAPTION_ENDINGS[0]), None)
