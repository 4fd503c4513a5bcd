"""Pictures to start from are kept upright under their content's name, and read as painters take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.errors import UserError
from trainer.inputs import hidden_part, input_problems, keep_input, read_input
from trainer.runs.store import Workspace


def test_the_same_picture_is_kept_once_and_upright(tmp_path: Path) -> None:
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3)
    turned = Image.fromarray(np.rot90(pixels))
    turned.getexif()[0x0112] = 6  # to be turned clockwise
    path = keep_input(Workspace(tmp_path), turned)
    assert path.parent == tmp_path / "inputs"
    assert np.array_equal(np.asarray(Image.open(path)), pixels)
    assert keep_input(Workspace(tmp_path), Image.fromarray(pixels)) == path
    assert list(path.parent.iterdir()) == [path]


def test_huge_pictures_are_bounded_and_odd_modes_read(tmp_path: Path) -> None:
    assert Image.open(keep_input(Workspace(tmp_path), Image.new("1", (9000, 90), 1))).size == (4096, 41)
    for mode in ("P", "LA", "CMYK", "I;16", "F"):
        kept = keep_input(Workspace(tmp_path), Image.new(mode, (5, 3)))
        assert read_input(kept, "init_image").mode == "RGB"


def test_what_is_transparent_is_a_mask_and_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 2), "red")
    assert hidden_part(image) is None
    image.putpixel((1, 0), (0, 0, 255, 0))
    kept = Image.open(keep_input(Workspace(tmp_path), image))
    mask = hidden_part(kept)
    assert mask is not None
    assert np.argwhere(np.asarray(mask) == 255).tolist() == [[0, 1]]
    assert read_input(Path(kept.filename), "init_image").getpixel((1, 0)) == (255, 255, 255)


def test_a_mask_painted_on_nothing(tmp_path: Path) -> None:
    strokes = Image.new("RGBA", (4, 2), (255, 255, 255, 0))
    strokes.putpixel((2, 1), (255, 255, 255, 255))
    strokes.save(tmp_path / "mask.png")
    assert np.argwhere(np.asarray(read_input(tmp_path / "mask.png", "mask"))).tolist() == [[1, 2]]


def test_all_problems_are_told_with_their_field(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    problems = input_problems(str(tmp_path / "text.png"), str(tmp_path / "gone.png"))
    assert [(p.code, p.field) for p in problems] == [("picture.unreadable", "init_image"), ("picture.missing", "mask")]
    (problem,) = input_problems(str(tmp_path / "black.png"), str(tmp_path / "black.png"))
    assert (problem.code, problem.field) == ("picture.empty_mask", "mask")
    assert input_problems(None, None) == []


def test_a_broken_picture_is_not_kept(tmp_path: Path) -> None:
    whole = keep_input(Workspace(tmp_path), Image.effect_noise((64, 64), 50)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="init_image: the picture cannot be read: it is cut off"):
        keep_input(Workspace(tmp_path), Image.open(tmp_path / "half.png"))
    assert len(list((tmp_path / "inputs").iterdir())) == 1
