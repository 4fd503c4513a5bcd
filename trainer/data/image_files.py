"""Opening picture files: which ones are pictures, how large they are, and their pixels as upright RGB. Never torch."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError, features

MAX_PREVIEW_PIXELS = 100_000_000
"""Larger pictures take more than 300 MB as RGB: too much for looking at them."""

ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is to be turned or mirrored."""
TURNED = (5, 6, 7, 8)
"""Its values for which width and height change places."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TAIL_BYTES = 64
_COLOUR_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}

READS_AVIF = bool(features.check("avif"))
PICTURE_ENDINGS: frozenset[str] = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp"} | ({".avif"} if READS_AVIF else set())
)
FORMATS: tuple[str, ...] = ("PNG", "JPEG", "GIF", "BMP", "WEBP", *(("AVIF",) if READS_AVIF else ()))
"""What is read, by Pillow's names, whatever a file is called; MPO is read as JPEG. Some of Pillow's other readers start
programs on what is in the file: Ghostscript on PostScript, without an end if it has none."""
PICTURE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, MemoryError, Image.DecompressionBombError)
"""What Pillow raises on broken files; its format plug-ins are not uniform."""


def open_picture(source: Path | io.BytesIO, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """A picture file with its header read and its pixels not yet. Raises one of PICTURE_ERRORS.

    Pictures are opened nowhere else: Pillow by itself tries every format that it knows on a file, whatever its name.
    """
    with warnings.catch_warnings():
        # Pillow warns at half of the size that it refuses; large scans are welcome, only the refusal counts.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(source, formats=formats)


def is_picture_file(path: Path) -> bool:
    """Whether the name is that of a picture. Hidden files are not (macOS leaves ``._name.png`` beside ``name.png``)."""
    return is_picture_name(path.name)


def is_picture_name(name: str) -> bool:
    """Likewise for a file's name without its folder."""
    return name[name.rfind(".") :].lower() in PICTURE_ENDINGS and not name.startswith(".")


class ChangedPicture(ValueError):
    """A picture file is not any more what it was when it was first read."""


def unchanged(data: bytes, digest: str) -> bytes:
    """The bytes of a file, whose SHA-256 was ``digest``. Raises ChangedPicture where it is another one."""
    if hashlib.sha256(data).hexdigest() != digest:
        raise ChangedPicture
    return data


def read_size(path: Path) -> tuple[int, int]:
    """Width and height as the picture is shown, after EXIF rotation. Reads the header only.

    A file whose end looks cut off is decoded to be sure. Raises one of PICTURE_ERRORS for an unusable picture.
    """
    with _open(path) as image:
        width, height = image.size
        turned = _orientation(image) in TURNED
        if _looks_cut_off(path, image.format):
            image.load()
    return (height, width) if turned else (width, height)


def read_rgb(data: bytes) -> Image.Image:
    """The bytes of a picture file as an upright 8-bit RGB image; transparent parts become white.

    Raises one of PICTURE_ERRORS.
    """
    with _open(io.BytesIO(data)) as image:
        orientation = _orientation(image)
        image.load()
        return as_rgb(_upright(image, orientation))


def read_grey(data: bytes) -> Image.Image:
    """The bytes of a picture file as an upright 8-bit grey image. Raises one of PICTURE_ERRORS."""
    with _open(io.BytesIO(data)) as image:
        orientation = _orientation(image)
        image.load()
        upright = _upright(image, orientation)
        return (_from_16_bit(upright) if upright.mode.startswith("I") else upright).convert("L")


def read_alpha(data: bytes) -> Image.Image | None:
    """The upright alpha channel of a picture file's bytes, 255 where it is opaque; None where it has none.

    Raises one of PICTURE_ERRORS.
    """
    with _open(io.BytesIO(data)) as image:
        orientation = _orientation(image)
        image.load()
        if not image.has_transparency_data:
            return None
        return _upright(image, orientation).convert("RGBA").getchannel("A")


@dataclass(frozen=True)
class FullPicture:
    """A picture with everything that it shows.

    Attributes:
        image: upright, 8-bit, RGB or RGBA; its colours are sRGB.
        format: the file's format, as Pillow calls it.
        as_stored: whether these are the file's own pixels, neither turned nor converted, and there are no other frames.
        profile_failed: whether the file has a colour profile that cannot be used.
    """

    image: Image.Image
    format: str
    as_stored: bool
    profile_failed: bool


def read_full(data: bytes) -> FullPicture:
    """The bytes of a picture file with their transparency, converted to sRGB by its colour profile.

    Raises one of PICTURE_ERRORS.
    """
    with _open(io.BytesIO(data)) as image:
        orientation, kind = _orientation(image), str(image.format)
        frames = 1 if kind == "MPO" else getattr(image, "n_frames", 1)
        image.load()
        profile, mode = image.info.get("icc_profile"), image.mode
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        opaque = image.convert("RGB") if alpha is not None or mode == "P" else image
        opaque = _from_16_bit(opaque) if opaque.mode.startswith("I") else opaque
        converted = in_srgb(opaque, profile)
        picture = (opaque if converted is None else converted).convert("RGB")
        picture.info = {}  # profile and transparency are in the pixels now, and must not be saved beside them
        if alpha is not None:
            picture.putalpha(alpha)
    as_stored = frames == 1 and orientation not in _UPRIGHT and mode in ("RGB", "RGBA", "L") and converted is opaque
    return FullPicture(_upright(picture, orientation), kind, as_stored, converted is None)


def read_preview(path: Path, side_px: int) -> Image.Image:
    """The picture upright as RGB, at most ``side_px`` wide and high. A JPEG is decoded at a fraction of its size.

    Raises one of PICTURE_ERRORS; pictures of more than MAX_PREVIEW_PIXELS are not decoded.
    """
    with _open(path) as image:
        if image.width * image.height > MAX_PREVIEW_PIXELS:
            raise Image.DecompressionBombError
        orientation = _orientation(image)
        image.draft("RGB", (side_px, side_px))
        image.load()
        preview = as_rgb(_upright(image, orientation))
    preview.thumbnail((side_px, side_px))
    return preview


def why_unreadable(error: BaseException) -> str:
    """One plain clause on why a picture cannot be used, without the path that Pillow puts into its messages."""
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000} million pixels"
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture, or damaged"
    if isinstance(error, PermissionError):
        return "reading it is not permitted"
    if isinstance(error, FileNotFoundError):
        return "it is gone"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, ChangedPicture):
        return "it was changed meanwhile"
    if isinstance(error, OSError) and error.strerror is not None:
        return f"it cannot be read ({error.strerror})"
    if "truncated" in str(error).lower():
        return "it is cut off before its end"
    return f"it is damaged ({error})" if str(error) else "it is damaged"


@contextmanager
def _open(source: Path | io.BytesIO) -> Iterator[Image.Image]:
    with open_picture(source) as image:
        if min(image.size) < 1:
            raise ValueError("it has no pixels")
        try:
            yield image
        except AssertionError as error:  # Pillow takes it for granted
            raise ValueError("it lacks its table of colours") from error


def _orientation(image: Image.Image) -> int:
    # The base class's method: the PNG plug-in's own one would decode the whole picture to look behind the pixels.
    return int(Image.Image.getexif(image).get(ORIENTATION, 1))


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _looks_cut_off(path: Path, kind: str | None) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
    if kind in ("JPEG", "MPO"):
        return b"\xff\xd9" not in tail
    if kind == "PNG":
        return b"IEND" not in tail
    if kind == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 > size
    if kind == "BMP":
        return int.from_bytes(head[2:6], "little") > size
    return kind == "AVIF"  # no cheap sign: decode


def as_rgb(image: Image.Image) -> Image.Image:
    """A decoded picture as 8-bit RGB; transparent parts become white."""
    if image.mode.startswith("I"):
        image = _from_16_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """The picture as RGB in sRGB; itself where it is that already, None where its profile cannot be used."""
    if not profile:
        return image if image.mode in ("RGB", "L") else image.convert("RGB")
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(given).lower().startswith("srgb"):
            return image if image.mode in ("RGB", "L") else image.convert("RGB")
        mode = _COLOUR_SPACES[given.profile.xcolor_space]
        return ImageCms.profileToProfile(
            image.convert(mode),
            given,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError):
        return None


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit grey to 255 when it converts; scale it instead."""
    values = np.asarray(image, dtype=np.float64).clip(0, 65535)
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
