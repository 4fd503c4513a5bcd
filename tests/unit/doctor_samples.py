"""Pictures that the doctor has nothing against, and what makes it find something, for its tests and those of fixes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def sharp(seed: int, width: int = 96, height: int = 80) -> Image.Image:
    """Blocks of random colours with hard edges, unlike those of other seeds."""
    blocks = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def write(
    folder: Path, name: str, image: Image.Image, caption: str | None = None, kind: str | None = None, **options: Any
) -> Path:
    """Save a picture with a caption of its own."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **options)
    text = caption if caption is not None else f"the {name.rpartition('.')[0]} one"
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def write_mask(folder: Path, name: str, image: Image.Image) -> Path:
    """Save the mask of the picture that is called ``name``, endings apart."""
    path = folder / ".atelier" / "masks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def linear_profile() -> bytes:
    """An ICC profile with sRGB's primaries and linear light, built byte by byte after ICC.1:2010, section 7 and 10."""
    white, red = (0.9642, 1.0, 0.8249), (0.4361, 0.2225, 0.0139)
    green, blue = (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)  # no entries: the identity
    name = b"linear light\0"
    text = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78)
    tags = [
        (b"desc", text),
        (b"wtpt", _xyz(white)),
        (b"rXYZ", _xyz(red)),
        (b"gXYZ", _xyz(green)),
        (b"bXYZ", _xyz(blue)),
    ]
    tags += [(tag, curve) for tag in (b"rTRC", b"gTRC", b"bTRC")]
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags:
        padded = data + bytes(-len(data) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += padded
    size = struct.pack(">I", 128 + len(table) + len(body))
    head = size + bytes(4) + bytes([2, 0x40, 0, 0]) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">iii", *(round(value * 65536) for value in white)) + bytes(48)
    return head + table + body


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">iii", *(round(value * 65536) for value in values))
