"""Pictures to start from: kept in the workspace by their content, and read as the painter takes them. Never torch."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageChops, ImageOps

from trainer.data.image_files import PICTURE_ERRORS, as_rgb, read_alpha, read_grey, read_rgb, read_size, why_unreadable
from trainer.errors import Problem, UserError
from trainer.files import write_bytes
from trainer.pictures import LARGEST_SIDE_PX
from trainer.runs.store import Workspace


def keep_input(workspace: Workspace, image: Image.Image) -> Path:
    """Store a picture, upright, as WORKSPACE/inputs/<its content>.png; one that is there already is not written again.

    It stays RGB, or RGBA where parts are transparent (``hidden_part`` finds them). Raises UserError when it has no
    pixels that can be read.
    """
    try:
        upright = ImageOps.exif_transpose(image)
        upright = upright.convert("RGBA") if upright.has_transparency_data else as_rgb(upright)
        upright.thumbnail((LARGEST_SIDE_PX, LARGEST_SIDE_PX), Image.Resampling.LANCZOS)
        png = io.BytesIO()
        upright.save(png, format="PNG")
    except PICTURE_ERRORS as error:
        message = f"init_image: the picture cannot be read: {why_unreadable(error)}."
        raise UserError("picture.unreadable", message, "Choose another picture.", "init_image") from error
    path = workspace.inputs_dir / f"{hashlib.sha256(png.getvalue()).hexdigest()[:16]}.png"
    if not path.exists():
        write_bytes(path, png.getvalue())
    return path


def hidden_part(image: Image.Image) -> Image.Image | None:
    """The transparent part of a picture as a mask, white where it is to be drawn anew; None where all is opaque.

    As ComfyUI (``LoadImage``) and A1111 take the alpha channel.
    """
    if not image.has_transparency_data:
        return None
    mask = ImageOps.invert(image.convert("RGBA").getchannel("A"))
    return mask if mask.getbbox() else None


def read_input(path: Path, field: str) -> Image.Image:
    """A picture to start from as RGB, or a mask as grey, black where it is transparent.

    Raises UserError(field) when there is none.
    """
    with _told(path, field):
        data = path.read_bytes()
        if field != "mask":
            return read_rgb(data)
        grey, alpha = read_grey(data), read_alpha(data)
        return grey if alpha is None else ImageChops.multiply(grey, alpha)


def input_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of a picture to start from. Raises UserError(init_image) when there is none."""
    with _told(path, "init_image"):
        return read_size(path)


@contextmanager
def _told(path: Path, field: str) -> Iterator[None]:
    """Say as a UserError why a picture cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        message, hint = f"{field}: there is no picture {path}.", "Check the path, or choose the picture again."
        raise UserError("picture.missing", message, hint, field) from error
    except PICTURE_ERRORS as error:
        message = f"{field}: {path.name} cannot be read as a picture: {why_unreadable(error)}."
        raise UserError("picture.unreadable", message, "Choose a PNG, JPEG or WebP file.", field) from error


def input_problems(init_image: str | None, mask: str | None) -> list[Problem]:
    """What is wrong with the pictures to start from: missing, no pictures, or a mask in which nothing is white."""
    problems: list[Problem] = []
    for field, path in (("init_image", init_image), ("mask", mask)):
        try:
            if path is not None and read_input(Path(path), field).getextrema() == (0, 0):
                raise UserError(
                    "picture.empty_mask", f"{field}: nothing in it is white.", "Mark what to draw anew.", field
                )
        except UserError as error:
            problems += error.problems
    return problems
