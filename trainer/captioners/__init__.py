"""Captioners by name. Adding one is a file with a ``CaptionerKind``, and its line here."""

from __future__ import annotations

from trainer.captioners import blip, plain
from trainer.captioners.base import CaptionerKind

CAPTIONERS: dict[str, CaptionerKind] = {
    "blip": blip.KIND,
    "filename": plain.FILE_NAME,
    "fixed": plain.FIXED_TEXT,
}
