"""Findings about single pictures: broken, of the wrong kind, shape, size or name, blurred, with borders."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainer.curation.doctor.look import Look
from trainer.curation.doctor.report import Findings
from trainer.curation.doctor.salvage import readable_part
from trainer.data.folders import SkippedPicture
from trainer.data.image_files import MAX_PREVIEW_PIXELS

EXTREME_ASPECT = 3.0
BLUR_PX = 2.0
"""Width (standard deviation, in a picture of LOOK_PX) of the sharpest edges from which a picture is called blurred."""
_SOFTER_THAN_OTHERS = 0.4
_SHARP_PERCENTILE = 80
_LONGEST_NAME_BYTES = 200
_REPLACE = "Replace or remove it; training leaves it out."
ENDINGS: dict[str, tuple[str, ...]] = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),  # several JPEGs in one file, as some cameras write them
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "AVIF": (".avif",),
}
"""File endings by Pillow's format, the usual one first."""


def ending_fits(name: str, kind: str) -> bool:
    """Whether a file's name ends as files of Pillow's format ``kind`` do."""
    return Path(name).suffix.lower() in ENDINGS.get(kind, ())


def plain_name(name: str) -> str:
    """A file name without what programs trip over: composed letters, blanks around, a length beyond bounds."""
    path = Path(unicodedata.normalize("NFC", name))
    stem, ending = path.stem.strip().rstrip(".").rstrip() or "picture", path.suffix
    while len((stem + ending).encode("utf-8", "surrogateescape")) > _LONGEST_NAME_BYTES:
        stem = stem[:-1]
    return stem.rstrip() + ending


def broken_pictures(looks: Mapping[Path, Look], skipped: list[SkippedPicture], found: Findings) -> None:
    """Pictures that cannot be used, and what can still be read of them."""
    reasons = {picture.path: picture.reason for picture in skipped}
    for path, look in looks.items():
        if not look.error:
            if path in reasons:
                hint = "Nothing to do, if that is what you want."
                found.add("picture.left_out", "info", [path], f"Left out of training: {reasons[path]}.", hint)
            continue
        part = readable_part(path.read_bytes()) if look.digest else None
        if part is None:
            found.add("picture.unreadable", "error", [path], f"Cannot be used: {look.error}.", _REPLACE)
            continue
        what = "all of it can still be read, coarser" if part[1] == 1 else f"the upper {part[1]:.0%} can still be read"
        message = f"Cannot be used: {look.error}; {what}."
        found.add("picture.truncated", "error", [path], message, "Get it again, or keep what can be read.")


def single_pictures(looks: Mapping[Path, Look], resolution: int, found: Findings) -> None:
    """What is worth knowing about each picture that can be used."""
    for path, look in looks.items():
        _name(path, found)
        if look.error:
            continue
        _shape(path, look, resolution, found)
        _kind(path, look, found)
        _colours(path, look, found)
    _blur(looks, found)


def _name(path: Path, found: Findings) -> None:
    if plain_name(path.name) != path.name:
        message = "The name has blanks at its end, is very long, or has letters and accents apart."
        found.add("picture.odd_name", "info", [path], message, "Other programs may not find its caption.")


def _shape(path: Path, look: Look, resolution: int, found: Findings) -> None:
    short, long = sorted((look.width, look.height))
    if short < resolution / 2:
        message = f"Shorter side under {resolution // 2} px, half of the resolution {resolution}."
        found.add("picture.tiny", "warning", [path], message, "Use larger pictures, or train at a lower resolution.")
    if short * long > MAX_PREVIEW_PIXELS:
        message = f"More than {MAX_PREVIEW_PIXELS // 1_000_000} million pixels."
        found.add("picture.huge", "warning", [path], message, "Save a smaller copy: nothing is gained by so many.")
    if long > EXTREME_ASPECT * short:
        message = f"More than {EXTREME_ASPECT:g} times as long as wide."
        found.add(
            "picture.extreme_aspect", "info", [path], message, "Much of it may be cropped away: crop it yourself."
        )
    if look.inside is not None:
        message = "Plain bars at opposite sides: letterbox or pillarbox."
        found.add("picture.borders", "warning", [path], message, "The model learns to draw them: cut them off.")


def _kind(path: Path, look: Look, found: Findings) -> None:
    if not ending_fits(path.name, look.format):
        message = f"The ending does not fit: this is a {look.format} file."
        hint = "Rename it, so that other programs can open it too."
        found.add("picture.wrong_extension", "info", [path], message, hint)
    if look.frames > 1:
        hint = "Save the frame you want, or keep the first."
        found.add("picture.animated", "info", [path], "Moves: only the first frame is used.", hint)
    if look.turned:
        message = "Turned upright by a mark in the file (EXIF)."
        hint = "Nothing to do for training here; some other programs miss the mark."
        found.add("picture.rotated", "info", [path], message, hint)
    if look.transparent:
        hint = "Put it on a background of your choice if white does not suit."
        found.add("picture.transparent", "info", [path], "Transparent parts become white.", hint)


def _colours(path: Path, look: Look, found: Findings) -> None:
    if look.mode == "CMYK":
        message = "CMYK: colours are converted, and may shift."
        found.add("picture.cmyk", "info", [path], message, "Convert it, and see how it looks.")
    if look.profile:
        message = f"Its colours are meant for the profile {look.profile}; training takes them for sRGB."
        found.add("picture.profile", "warning", [path], message, "Convert it, or it is learned paler or stronger.")
    if look.deep:
        message = "More than 8 bits per channel: only 8 are used."
        found.add("picture.deep", "info", [path], message, "Convert it to save space.")


def _blur(looks: Mapping[Path, Look], found: Findings) -> None:
    """Pictures without a sharp edge that are also much softer than the sharper ones of the folder.

    A folder that is soft throughout has a style, not a fault.
    """
    measured = {path: look.sharpness for path, look in looks.items() if look.sharpness is not None}
    if not measured:
        return
    usual = float(np.percentile(list(measured.values()), _SHARP_PERCENTILE))
    limit = min(1 / (2 * BLUR_PX**2), _SOFTER_THAN_OTHERS * usual)
    blurred = [path for path, value in measured.items() if value < limit]
    if blurred:
        message = "Blurred: no sharp edge anywhere, unlike in the other pictures."
        found.add("picture.blurred", "warning", blurred, message, "The model learns the blur: leave them out.")
