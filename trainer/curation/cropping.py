"""Cropping one picture in place, with its mask. The picture as it was leaves the dataset and can be brought back."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from trainer.curation.conversion import save_like
from trainer.curation.crops import Box
from trainer.curation.mask_files import keep_mask, mask_name
from trainer.curation.steps import Move, new_file, put_in_place
from trainer.data.image_files import PICTURE_ERRORS, read_full, read_grey, why_unreadable
from trainer.errors import UserError


def crop_in_place(folder: Path, name: str, box: Box) -> list[Move]:
    """Write cropped copies of a picture and its painted mask; the steps put them in the places of these.

    The copy has the picture's own format; its caption stays as it is. Raises UserError for a picture that cannot be
    read.
    """
    try:
        full = read_full((folder / name).read_bytes())
        mask = _mask(folder / mask_name(name))
    except PICTURE_ERRORS as error:
        message = f"{name} cannot be cropped: {why_unreadable(error)}."
        raise UserError("crop.unreadable", message, "Check the pictures first.") from error
    written = new_file(folder, name)
    save_like(full, full.image.crop(box.pixels(*full.image.size)), written)
    steps = [put_in_place(folder, name, written)]
    if mask is not None:
        steps.append(keep_mask(folder, name, mask.crop(box.pixels(*mask.size))))
    return steps


def _mask(path: Path) -> Image.Image | None:
    try:
        return read_grey(path.read_bytes())
    except FileNotFoundError:
        return None
