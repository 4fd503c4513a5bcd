"""Findings about the masks that lie in the folder's hidden place, one per picture, white where it counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainer.curation.doctor.look import Look
from trainer.curation.doctor.report import Findings
from trainer.curation.mask_files import MASKS
from trainer.data.image_files import PICTURE_ERRORS, read_grey, read_size, why_unreadable

_SHAPE_TOLERANCE = 0.02


def mask_findings(folder: Path, looks: Mapping[Path, Look], found: Findings) -> None:
    """Masks that belong to no picture, cannot be read, have another shape than their picture, or show nothing."""
    pictures = {path.relative_to(folder).with_suffix(""): path for path in looks}
    for mask in sorted((folder / MASKS).rglob("*.png")):
        picture = pictures.get(mask.relative_to(folder / MASKS).with_suffix(""))
        if picture is None:
            hint = "Its picture was renamed or left: set it aside, or rename it."
            found.add("mask.no_picture", "info", [mask], "Mask without a picture.", hint)
        elif not looks[picture].error:
            _note(mask, picture, found)


def _note(mask: Path, picture: Path, found: Findings) -> None:
    try:
        grey = read_grey(mask.read_bytes())
        width, height = read_size(picture)
    except PICTURE_ERRORS as error:
        message = f"The mask cannot be used: {why_unreadable(error)}."
        found.add("mask.unreadable", "error", [mask], message, "Paint it again.")
        return
    if abs(grey.width * height / (grey.height * width) - 1) > _SHAPE_TOLERANCE:
        message = "The mask's sides are not in the picture's proportion."
        found.add("mask.shape", "error", [mask], message, "Training leaves the picture out: paint the mask again.")
    elif grey.getextrema()[1] == 0:
        message = "The mask shows nothing, so nothing is learned from its picture."
        found.add("mask.empty", "warning", [mask], message, "Paint what counts white, or set the mask aside.")
