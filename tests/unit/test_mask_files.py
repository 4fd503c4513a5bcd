"""Painted masks come to lie where training looks for them, pixel by pixel; what is not a mask is refused."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.dataset_samples import Recorded, config_for, never_stop, noise_picture, write_picture
from trainer.curation import mask_files
from trainer.curation.edit_log import EditLog
from trainer.curation.mask_files import keep_mask, mask_name, masks_folder, origins, painted_mask, read_mask
from trainer.curation.steps import set_aside
from trainer.data.augment import no_augmentation
from trainer.data.epoch import lay_out
from trainer.data.masks import MaskSource
from trainer.errors import UserError


def png_url(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def painted(grey: Image.Image) -> Image.Image:
    """As the browser has it: one colour, with the mask as its transparency."""
    image = Image.new("RGBA", grey.size, (200, 30, 120, 255))
    image.putalpha(grey)
    return image


def test_training_reads_what_was_painted(tmp_path: Path) -> None:
    write_picture(tmp_path / "10_cat" / "a.b.png", 64, 64)
    write_picture(tmp_path / "plain.jpg", 64, 64)
    grey = noise_picture(64, 64, 5).convert("L")
    log = EditLog(tmp_path / "log", tmp_path)
    assert masks_folder(tmp_path) is None
    mask = painted_mask(png_url(painted(grey)), 64, 64)
    log.apply("mask", [keep_mask(tmp_path, "10_cat/a.b.png", mask)])
    folder = masks_folder(tmp_path)
    assert folder == tmp_path / ".atelier" / "masks"
    source = {"path": str(tmp_path), "mask_path": str(folder)}
    config = config_for(dataset={"sources": [source]}, loss={"masked": "mask"})
    entries = {entry.picture.path.name: entry for entry in lay_out(config).training}
    assert entries["plain.jpg"].picture.mask is None
    entry = entries["a.b.png"]
    reader = MaskSource("mask", 1, None, Recorded())
    change = no_augmentation(entry.placement)
    assert reader.fill([(entry, change)], never_stop) == {}
    expected = torch.from_numpy(np.asarray(grey, np.float32) / 255)
    assert torch.equal(reader.masks([(entry, change)])[0, 0], expected)


def test_undo_brings_the_mask_before_back(tmp_path: Path) -> None:
    write_picture(tmp_path / "sub" / "a.png", 16, 16)
    log = EditLog(tmp_path / "log", tmp_path)
    place = tmp_path / mask_name("sub/a.png")
    for value in (10, 20):
        log.apply("mask", [keep_mask(tmp_path, "sub/a.png", Image.new("L", (16, 16), value))])
    log.apply("no mask", set_aside([mask_name("sub/a.png")]))
    assert not place.exists() and list(origins(tmp_path, "sub/a.png")) == []
    found = []
    for step in (log.undo, log.undo, log.undo, log.redo, log.redo):
        assert step().conflicts == ()
        found.append(Image.open(place).getpixel((3, 3)) if place.exists() else None)
    assert found == [20, 10, None, 10, 20]


def test_large_pictures_are_painted_smaller(tmp_path: Path) -> None:
    assert mask_files.painted_size(4096, 3072) == (2048, 1536)
    assert mask_files.painted_size(2048, 100) == (2048, 100)
    assert mask_files.painted_size(1, 9000) == (1, 2048)
    half = Image.new("L", (2048, 1536))
    half.paste(255, (1024, 0, 2048, 1536))
    mask = painted_mask(png_url(painted(half)), 4096, 3072)
    assert mask.size == (4096, 3072) and mask.mode == "L"
    assert mask.getpixel((2040, 9)) == 0 and mask.getpixel((2056, 9)) == 255


def bomb() -> bytes:
    """A PNG that says it has 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:image/png;base64,not base64!",
        "data:image/png;base64," + base64.b64encode(jpeg()).decode(),
        "data:image/png;base64," + base64.b64encode(bomb()).decode(),
        "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(),
        png_url(Image.new("RGBA", (9, 8), "red")),
        png_url(Image.new("RGBA", (8, 8), "red"))[:-30],
        "data:image/png;base64," + "A" * (mask_files.MAX_BYTES * 2),
    ],
    ids=["empty", "svg", "not base64", "jpeg", "bomb", "cut", "wrong size", "cut off", "large"],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(UserError) as caught:
        painted_mask(url, 8, 8)
    assert caught.value.problems[0].code == "mask.upload"


def test_a_mask_that_shows_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="Nothing is painted"):
        painted_mask(png_url(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), 8, 8)


def test_what_a_mask_can_start_from(tmp_path: Path) -> None:
    turned = Image.new("RGBA", (8, 4), (1, 2, 3, 0))
    turned.putpixel((0, 0), (1, 2, 3, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    turned.save(tmp_path / "a.png", exif=exif)
    Image.new("L", (4, 8), 77).save(tmp_path / "a-masklabel.png")
    assert list(origins(tmp_path, "a.png")) == ["alpha", "onetrainer"]
    alpha = read_mask(tmp_path, "a.png", "alpha", 99)
    assert alpha.size == (4, 8) and alpha.getpixel((3, 0)) == 255 and np.asarray(alpha).sum() == 255
    assert read_mask(tmp_path, "a.png", "onetrainer", 99).getpixel((0, 0)) == 77
    assert read_mask(tmp_path, "a.png", "onetrainer", 4).size == (2, 4)
    write_picture(tmp_path / "b.jpg", 8, 8)
    assert list(origins(tmp_path, "b.jpg")) == []
    for origin, code in (("mask", "mask.unreadable"), ("alpha", "mask.no_alpha")):
        with pytest.raises(UserError) as caught:
            read_mask(tmp_path, "b.jpg", origin, 99)  # type: ignore[arg-type]
        assert caught.value.problems[0].code == code
