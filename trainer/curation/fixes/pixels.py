"""Fixes that make new pixels: a new file is put in place as a step that Undo takes back; the old one goes aside."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from trainer.curation.doctor.measures import Box, borders
from trainer.curation.doctor.pictures import ending_fits
from trainer.curation.doctor.salvage import readable_part
from trainer.curation.fixes.companions import companions, free_name
from trainer.curation.fixes.offers import BACKGROUNDS
from trainer.curation.mask_files import MASKS, mask_name
from trainer.curation.steps import Move, Step, new_file, put_in_place, set_aside
from trainer.data.image_files import ORIENTATION, PICTURE_ERRORS, TURNED, as_rgb, open_picture, read_full, read_grey
from trainer.errors import UserError
from trainer.files import write_bytes

LONGEST_PX = 4096
"""Longer side of pictures that were huge: several times what any model is trained at."""
_COLOURS = {"white": (255, 255, 255), "grey": (128, 128, 128), "black": (0, 0, 0)}
_BLUR_SHARE = 0.08
_SAVED_AS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True},
}

Values = Mapping[str, str]


def rewrite(folder: Path, name: str, fixes: Sequence[str], values: Values) -> list[Step]:
    """The steps that replace a picture by one with these fixes made, upright and with the ending that fits.

    The new file is written at once, out of sight, so that the steps are but renames. A mask is cropped alike.
    Raises one of PICTURE_ERRORS when the picture cannot be read, and UserError for a background that is none.
    """
    data = (folder / name).read_bytes()
    image, kind, cut = _opened(data, fixes)
    before = _upright_size(data) if cut else image.size
    box = borders(np.asarray(as_rgb(image))) if "trim" in fixes else None
    if box is not None:
        image = image.crop(box)
    for fix, change in _CHANGES.items():
        if fix in fixes:
            image = change(image, values)
    kind = kind if kind in _SAVED_AS else "PNG"
    target = name if ending_fits(name, kind) else renamed(folder, name, _SAVED_AS[kind])
    written = new_file(folder, target)
    write_bytes(written, _encoded(image, kind))
    mask = _cropped_mask(folder, name, target, before, box or (0, 0, *image.size)) if cut or box else []
    return [put_in_place(folder, target, written), *mask, *_old_ones(folder, name, target, masked=bool(mask))]


def renamed(folder: Path, name: str, ending: str) -> str:
    """``name`` with another ending, and with a number where that is taken."""
    wanted = str(PurePosixPath(name).with_suffix(ending))
    return free_name(folder, wanted) if (folder / wanted).exists() else wanted


def _old_ones(folder: Path, name: str, target: str, *, masked: bool) -> list[Step]:
    """What becomes of the picture's old file and companions where the new one has another name."""
    if target == name:
        return []
    moves: list[Step] = [*set_aside([name])]
    for old, new in companions(folder, name, target=target):
        if masked and old.startswith(MASKS):
            moves += set_aside([old]) if old != new else []
        elif old != new:
            moves.append(Move(old, new))
    return moves


def _opened(data: bytes, fixes: Sequence[str]) -> tuple[Image.Image, str, bool]:
    """The first frame, upright, its format, and whether only a part of it could be read."""
    part = readable_part(data) if "save_readable" in fixes else None
    if part is not None:
        with open_picture(io.BytesIO(data)) as image:
            return ImageOps.exif_transpose(part[0]), _kind(image), part[1] < 1
    if "to_srgb" in fixes:
        full = read_full(data)
        return full.image, full.format.replace("MPO", "JPEG"), False
    with open_picture(io.BytesIO(data)) as image:
        image.load()
        return ImageOps.exif_transpose(image), _kind(image), False


def _kind(image: Image.Image) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)


def _upright_size(data: bytes) -> tuple[int, int]:
    """Of the whole picture, though it cannot be decoded to its end."""
    with open_picture(io.BytesIO(data)) as image:
        turned = Image.Image.getexif(image).get(ORIENTATION, 1) in TURNED  # PNG's own method would decode
        return (image.height, image.width) if turned else image.size


def _on_background(image: Image.Image, values: Values) -> Image.Image:
    name = values.get("background", "white")
    if name not in BACKGROUNDS:
        raise UserError(
            "fix.background",
            f"background: {name!r} is none; allowed are {', '.join(BACKGROUNDS)}.",
            "Choose one of them.",
            "background",
        )
    upper = image.convert("RGBA")
    lower = _blurred(upper) if name == "blur" else Image.new("RGBA", image.size, (*_COLOURS[name], 255))
    filled = Image.alpha_composite(lower, upper).convert("RGB")
    filled.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return filled


def _blurred(image: Image.Image) -> Image.Image:
    """The opaque parts spread softly over the whole; far from any of them their mean colour."""
    pixels = np.asarray(image, dtype=np.float32)
    weight = pixels[..., 3:] / 255
    mean = (pixels[..., :3] * weight).sum((0, 1)) / max(float(weight.sum()), 1e-6)
    radius = _BLUR_SHARE * max(image.size)
    shade = ImageFilter.GaussianBlur(radius)
    around = pixels[..., :3] * weight + mean * (1 - weight)
    whole = Image.fromarray(around.clip(0, 255).astype(np.uint8)).filter(shade)
    return whole.convert("RGBA")


def _shrunk(image: Image.Image, values: Values) -> Image.Image:
    scale = LONGEST_PX / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    straight = image.convert("RGBA" if image.has_transparency_data else "RGB") if image.mode in ("P", "1") else image
    return straight.resize(size, Image.Resampling.LANCZOS, reducing_gap=2)


_CHANGES: dict[str, Callable[[Image.Image, Values], Image.Image]] = {
    "shrink": _shrunk,
    "background": _on_background,
}
"""The other fixes follow from opening: the first frame, upright, its colours, what can be read."""


def _encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    exif = image.getexif()
    saved = image if kind != "JPEG" or image.mode in ("RGB", "L", "CMYK") else as_rgb(image)
    options = {**_OPTIONS.get(kind, {}), **({"exif": exif} if len(exif) and kind != "BMP" else {})}
    saved.save(out, kind, icc_profile=image.info.get("icc_profile"), **options)
    return out.getvalue()


def _cropped_mask(folder: Path, name: str, target: str, size: tuple[int, int], box: Box) -> list[Step]:
    """The mask cut like its picture; nothing where there is none, or where it cannot be read."""
    try:
        grey = read_grey((folder / mask_name(name)).read_bytes())
    except PICTURE_ERRORS:
        return []
    across, down = grey.width / size[0], grey.height / size[1]
    cropped = grey.crop((round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down)))
    out = io.BytesIO()
    cropped.save(out, "PNG")
    goal = mask_name(target)
    written = new_file(folder, goal)
    write_bytes(written, out.getvalue())
    return [put_in_place(folder, goal, written)]
