"""Masks painted by hand: where they lie, what they can start from, and taking in what the browser painted. Never torch.

A mask lies in its dataset's hidden folder, ``.atelier/masks``, under its picture's path with the ending ``.png``; that
folder is what ``mask_path`` of a source names. White counts, black does not.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from PIL import Image

from trainer.curation.steps import HIDDEN, Move, new_file, put_in_place
from trainer.data.folders import picture_files
from trainer.data.image_files import PICTURE_ERRORS, open_picture, read_alpha, read_grey, why_unreadable
from trainer.errors import UserError

MaskOrigin = Literal["mask", "alpha", "onetrainer"]
"""The picture's own mask, its alpha channel, or the mask that OneTrainer keeps beside it."""
ORIGINS: tuple[MaskOrigin, ...] = get_args(MaskOrigin)

MASKS = f"{HIDDEN}/masks"
PAINTED_PX = 2048
"""Longest side of what is painted on; larger pictures get their mask scaled up. Training reads cells of 8 pixels."""
MAX_BYTES = 16 * 2**20

_ONETRAINER_SUFFIX = "-masklabel.png"
_DATA_URL = "data:image/png;base64,"


def mask_name(picture: str) -> str:
    """Where the mask of a picture lies; both are named relative to the dataset's folder."""
    return str(PurePosixPath(MASKS, picture).with_suffix(".png"))


def masks_folder(folder: Path) -> Path | None:
    """The folder of painted masks for training; None where no picture has one."""
    masks = folder / MASKS
    return masks if masks.is_dir() and picture_files(masks) else None


def origin_file(folder: Path, picture: str, origin: MaskOrigin) -> Path:
    """The file that a mask of this origin is read from; it need not exist."""
    if origin == "mask":
        return folder / mask_name(picture)
    if origin == "alpha":
        return folder / picture
    return (folder / picture).with_suffix("").with_name(f"{PurePosixPath(picture).stem}{_ONETRAINER_SUFFIX}")


def origins(folder: Path, picture: str) -> Iterator[MaskOrigin]:
    """What there is to start from. The alpha channel counts where the picture can have one; it may be opaque."""
    for origin in ORIGINS:
        file = origin_file(folder, picture, origin)
        if _has_alpha(file) if origin == "alpha" else file.is_file():
            yield origin


def read_mask(folder: Path, picture: str, origin: MaskOrigin, side_px: int) -> Image.Image:
    """A mask as 8-bit grey, upright, at most ``side_px`` wide and high. Raises UserError when it cannot be read."""
    file = origin_file(folder, picture, origin)
    try:
        data = file.read_bytes()
        mask = read_alpha(data) if origin == "alpha" else read_grey(data)
    except PICTURE_ERRORS as error:
        message = f"The mask {file.name} cannot be used: {why_unreadable(error)}."
        raise UserError("mask.unreadable", message, "Paint a new one, or remove it.") from error
    if mask is None:
        message = f"{file.name} has no transparent part."
        raise UserError("mask.no_alpha", message, "Paint the mask, or start from all of it.")
    mask.thumbnail((side_px, side_px))
    return mask


def painted_size(width: int, height: int) -> tuple[int, int]:
    """The size that the mask of an upright picture is painted at: its own, or PAINTED_PX for its longer side."""
    scale = min(1.0, PAINTED_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def painted_mask(url: str, width: int, height: int) -> Image.Image:
    """What the browser painted, as a mask for an upright picture of this size.

    Args:
        url: a data URL of a PNG of ``painted_size(width, height)`` whose alpha channel is the mask.
        width: of the picture in pixels.
        height: of the picture in pixels.

    Raises UserError for anything else, and for a mask that shows nothing. No more than the expected size is decoded.
    """
    expected = painted_size(width, height)
    try:
        with open_picture(io.BytesIO(_png_bytes(url)), formats=("PNG",)) as image:
            if image.size != expected:
                raise ValueError(f"it is {image.width} x {image.height} px, not {expected[0]} x {expected[1]}")
            mask = image.convert("RGBA").getchannel("A")
    except PICTURE_ERRORS as error:
        message = f"The painted mask cannot be used: {why_unreadable(error)}."
        raise UserError("mask.upload", message, "Reload the page and paint it again.", "mask") from error
    if mask.getbbox() is None:
        message = "Nothing is painted: nothing of this picture would be learned."
        raise UserError("mask.empty", message, "Paint what counts, or remove the mask.", "mask")
    return mask if mask.size == (width, height) else mask.resize((width, height), Image.Resampling.BILINEAR)


def keep_mask(folder: Path, picture: str, mask: Image.Image) -> Move:
    """Write a picture's mask beside its place; the step puts it there, and what is there now aside."""
    name = mask_name(picture)
    written = new_file(folder, name)
    mask.save(written, "PNG")
    return put_in_place(folder, name, written)


def _png_bytes(url: str) -> bytes:
    if not url.startswith(_DATA_URL) or len(url) > MAX_BYTES * 4 // 3:
        raise ValueError("it is not a PNG, or too large")
    try:
        return base64.b64decode(url[len(_DATA_URL) :], validate=True)
    except binascii.Error as error:
        raise ValueError("it is damaged") from error


def _has_alpha(picture: Path) -> bool:
    try:
        with open_picture(picture) as image:
            return image.has_transparency_data
    except PICTURE_ERRORS:
        return False
