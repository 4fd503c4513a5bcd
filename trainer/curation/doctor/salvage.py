"""What can still be read of a picture file that is cut off or damaged."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile

from trainer.data.image_files import MAX_PREVIEW_PIXELS, PICTURE_ERRORS, open_picture

LEAST_READABLE = 0.25
"""Share of a picture's rows from which keeping them is offered."""
_FILLERS = (0, 128)  # what Pillow leaves where nothing was decoded: PNG and WebP, JPEG
_LENIENT = threading.Lock()


def readable_part(data: bytes) -> tuple[Image.Image, float] | None:
    """The rows that were decoded before the fault, as stored, and their share of all rows.

    A progressive JPEG may come whole, only coarser. None where less than LEAST_READABLE can be read.
    """
    try:
        with _lenient(), open_picture(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PREVIEW_PIXELS:
                return None
            image.load()
            rows = _decoded_rows(image)
            share = rows / image.height
            return (image.crop((0, 0, image.width, rows)), share) if share >= LEAST_READABLE else None
    except PICTURE_ERRORS:
        return None


@contextmanager
def _lenient() -> Iterator[None]:
    """Pillow's switch for broken files is one for the whole process: one thread at a time, never beside others."""
    with _LENIENT:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def _decoded_rows(image: Image.Image) -> int:
    pixels = np.asarray(image.convert("RGB"))
    empty = np.zeros(len(pixels), dtype=bool)
    for filler in _FILLERS:
        empty |= (pixels == filler).all(axis=(1, 2))
    filled = np.nonzero(~empty)[0]
    return int(filled[-1]) + 1 if filled.size else 0
