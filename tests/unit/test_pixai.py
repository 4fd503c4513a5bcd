"""Both forms of the PixAI tagger, on models whose answers are known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import tiny_taggers
from trainer.captioners import CAPTIONERS
from trainer.captioners.kinds.pixai import letterboxed, stretched
from trainer.errors import UserError

RED, GREEN, BLUE = (Image.new("RGB", (12, 12), colour) for colour in ("#ff0000", "#00ff00", "#0000ff"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_taggers.pixai_tagger(tmp_path_factory.mktemp("v09"))


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_taggers.pixai_v1_tagger(tmp_path_factory.mktemp("v1"))


def caption_of(model: Path, image: Image.Image, **options: Any) -> str:
    kind = CAPTIONERS["pixai"]
    (text,) = kind.load(kind.parse({"model": str(model), **options})).captions([image], [Path("x.png")])
    return text


def test_how_pictures_go_in() -> None:
    wide = Image.new("RGB", (8, 4), (255, 0, 51))
    np.testing.assert_allclose(stretched(wide, 8)[:, 0, 0], [1, -1, -0.6], atol=1e-6)
    boxed = letterboxed(wide, 8)
    assert (boxed.shape, boxed.dtype) == ((3, 8, 8), np.float32)
    np.testing.assert_allclose(boxed[:, 1, 0], [-1, -1, -1])
    np.testing.assert_allclose(boxed[:, 4, 0], [1, -1, -0.6], atol=1e-6)


def test_old_form(old: Path) -> None:
    """A pure colour answers 0.88 to its own tags and 0.12 to the others."""
    assert caption_of(old, RED) == "ruby (rwby), rwby, red theme"
    assert caption_of(old, RED, series=False) == "ruby (rwby), red theme"
    assert caption_of(old, GREEN) == "green theme"
    assert caption_of(old, BLUE) == "^_^"
    assert caption_of(old, RED, character_threshold=0.89) == "red theme"


def test_thresholds_of_the_file_count_where_none_is_given(old: Path) -> None:
    grey = Image.new("RGB", (12, 12), (141, 141, 141))  # 0.553 for everything
    assert caption_of(old, grey) == ""
    assert caption_of(old, grey, general_threshold=0.5) == "red theme, green theme, ^_^"


def test_new_form(new: Path) -> None:
    assert caption_of(new, RED) == "ruby (rwby), red theme"
    assert caption_of(new, RED, rating=True) == "ruby (rwby), red theme, safe"
    assert caption_of(new, GREEN) == "nature, green theme"
    assert caption_of(new, GREEN, series=False) == "green theme"
    assert caption_of(new, BLUE) == ""
    assert caption_of(new, BLUE, style=True, meta=True) == "azure (artist), blue file"


def test_new_form_pads_with_black(new: Path) -> None:
    """White, twice as wide as high, is grey on the whole: 0.5 for each tag."""
    wide = Image.new("RGB", (12, 6), "white")
    assert caption_of(new, wide, general_threshold=0.49, character=False, series=False) == "red theme, green theme"
    assert caption_of(new, wide, general_threshold=0.51, character=False, series=False) == ""


def test_new_form_with_a_table_in_place_of_the_config(new: Path, tmp_path: Path) -> None:
    numbers = {"general": 0, "style": 1, "copyright": 3, "character": 4, "meta": 5, "rating": 9}
    names = [(name, numbers[category]) for category, names in tiny_taggers.PIXAI_V1.items() for name in names]
    (tmp_path / "model.onnx").write_bytes((new / "model.onnx").read_bytes())
    lines = ["id,name,category", *(f"{number},{name},{category}" for number, (name, category) in enumerate(names))]
    (tmp_path / "selected_tags.csv").write_text("\n".join(lines), encoding="utf-8")
    assert caption_of(tmp_path, GREEN, style=True) == "nature, green theme"
    assert caption_of(tmp_path, Image.new("RGB", (12, 6), "white"), character=False, series=False) == (
        "red theme, green theme"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"tags_split": [["general", 3]]},
        {"tags_split": [["general", 8], ["nobody", 1]]},
        {"tags_split": None},
        {"tags": 3},
    ],
)
def test_lists_that_do_not_fit_are_refused(change: dict[str, Any], new: Path, tmp_path: Path) -> None:
    config = json.loads((new / "config.json").read_text("utf-8"))
    (tmp_path / "model.onnx").write_bytes((new / "model.onnx").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        caption_of(tmp_path, RED)
    assert caught.value.problems[0].code == "caption.no_tags"
