"""What one picture file shows by itself, whatever it is to be used for; so that it can be kept for the next check."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from trainer.curation import similar
from trainer.curation.doctor.colours import profile_shift
from trainer.curation.doctor.measures import borders, sharpness
from trainer.data.image_files import (
    MAX_PREVIEW_PIXELS,
    ORIENTATION,
    PICTURE_ERRORS,
    as_rgb,
    open_picture,
    why_unreadable,
)

LOOK_PX = 512
"""Blur and borders are judged on pictures of at most this longer side: about what training sees of them."""
_VISIBLE_SHIFT = 4
_PNG_DEPTH_BYTE = 24


@dataclass(frozen=True)
class Look:
    """Facts about one picture file. Plain values only: it is stored as JSON.

    Attributes:
        digest: SHA-256 of the file; empty where it cannot be read at all.
        error: why it cannot be used, as a clause; empty where it can.
        width: pixels, as stored.
        height: pixels, as stored.
        format: Pillow's name of it.
        mode: Pillow's name of how pixels are stored.
        frames: more than one for animations.
        turned: whether an EXIF mark turns or mirrors it.
        transparent: whether some pixels are.
        deep: whether it has 16 bits or more per channel.
        profile: name of an embedded colour profile that makes a visible difference; empty for sRGB or none.
        pixels: the picture at 16 x 16 px, RGB bytes in base 64; empty where it was not decoded.
        sharpness: ``measures.sharpness``; None where it cannot be judged.
        inside: ``measures.borders`` in shares of the upright picture; None for a picture without borders.
    """

    digest: str = ""
    error: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    frames: int = 1
    turned: bool = False
    transparent: bool = False
    deep: bool = False
    profile: str = ""
    pixels: str = ""
    sharpness: float | None = None
    inside: tuple[float, float, float, float] | None = None

    @property
    def fingerprint(self) -> similar.Fingerprint | None:
        """What ``similar.alike`` compares; None where the picture was not decoded."""
        pixels = np.frombuffer(base64.b64decode(self.pixels), np.uint8)
        return similar.fingerprint_of_small(pixels) if pixels.size else None


def look_at(path: Path) -> Look:
    """Read and decode one file. A broken one is a Look with an ``error``, never a failure."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Look(error=why_unreadable(error))
    digest = hashlib.sha256(data).hexdigest()
    try:
        with open_picture(io.BytesIO(data)) as image:
            return _look(image, data, digest)
    except PICTURE_ERRORS as error:
        return Look(digest=digest, error=why_unreadable(error))


def _look(image: Image.Image, data: bytes, digest: str) -> Look:
    width, height, kind, mode = image.width, image.height, str(image.format), image.mode
    frames = getattr(image, "n_frames", 1) if kind != "MPO" else 1
    profile = image.info.get("icc_profile")
    facts: dict[str, Any] = {
        "digest": digest, "width": width, "height": height, "format": kind, "mode": mode, "frames": frames,
        "deep": mode.startswith(("I", "F")) or (kind == "PNG" and data[_PNG_DEPTH_BYTE] == 16),
        "profile": _profile_name(profile, mode) if isinstance(profile, bytes) else "",
    }  # fmt: skip
    if width * height > MAX_PREVIEW_PIXELS:
        return Look(**facts, turned=Image.Image.getexif(image).get(ORIENTATION, 1) not in (0, 1))
    image.draft("RGB", (LOOK_PX, LOOK_PX))  # decodes a JPEG to its end, at a fraction of the work
    image.load()
    turned = Image.Image.getexif(image).get(ORIENTATION, 1) not in (0, 1)
    transparent = image.has_transparency_data and not _is_opaque(image)
    upright = as_rgb(ImageOps.exif_transpose(image))
    upright.thumbnail((LOOK_PX, LOOK_PX), Image.Resampling.BOX, reducing_gap=2)
    inside = borders(np.asarray(upright))
    return Look(
        **facts,
        turned=turned,
        transparent=transparent,
        pixels=base64.b64encode(similar.small(upright).tobytes()).decode(),
        sharpness=sharpness(np.asarray(upright.convert("L"))),
        inside=None if inside is None else _shares(inside, upright.size),
    )


def _profile_name(profile: bytes, mode: str) -> str:
    if mode not in ("RGB", "RGBA", "L", "LA"):
        return ""  # CMYK is told as such
    name, shift = profile_shift(profile, mode.removesuffix("A"))
    return name if shift > _VISIBLE_SHIFT else ""


def _is_opaque(image: Image.Image) -> bool:
    least, _ = image.convert("RGBA").getchannel("A").getextrema()
    return least == 255


def _shares(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    (left, top, right, bottom), (width, height) = box, size
    return (left / width, top / height, right / width, bottom / height)
