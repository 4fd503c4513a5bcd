"""The WD tagger's real path, on a model whose answers are known by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from tests import tiny_taggers
from trainer.captioners import CAPTIONERS
from trainer.captioners.base import Captioner
from trainer.captioners.kinds.wd import square
from trainer.errors import UserError

RED, GREEN, BLUE = (Image.new("RGB", (12, 12), colour) for colour in ("#ff0000", "#00ff00", "#0000ff"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_taggers.wd_tagger(tmp_path_factory.mktemp("wd"))


def loaded(model: Path, **options: Any) -> Captioner:
    kind = CAPTIONERS["wd"]
    return kind.load(kind.parse({"model": str(model), **options}))


def caption_of(captioner: Captioner, image: Image.Image) -> str:
    (text,) = captioner.captions([image], [Path("x.png")])
    return text


def test_pictures_become_white_squares_in_bgr() -> None:
    pixels = square(Image.new("RGB", (8, 4), (255, 0, 10)), 8)
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.float32)
    np.testing.assert_array_equal(pixels[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(pixels[4, 4], [10, 0, 255])


def test_tags_of_colours(model: Path) -> None:
    """A pure colour answers 0.88 to its tags and 0.12 to the others."""
    captioner = loaded(model)
    assert captioner.captions([RED, GREEN, BLUE], [Path("x.png")] * 3) == [
        "ruby (rwby), red theme",
        "fern (sousou), green theme",
        "blue (pokemon), ^_^",
    ]
    assert caption_of(loaded(model, rating=True, spaces=False, character=False), BLUE) == "^_^, explicit"
    assert caption_of(loaded(model, character_threshold=0.89), RED) == "red theme"
    assert caption_of(loaded(model, general=False, character_threshold=0.88), GREEN) == "fern (sousou)"


def test_thresholds_count_for_what_is_seen_of_the_square(model: Path) -> None:
    """A red picture twice as wide as high is half white: green and blue answer 0.5."""
    wide = Image.new("RGB", (12, 6), "#ff0000")
    assert caption_of(loaded(model, character=False, general_threshold=0.49), wide) == "red theme, green theme, ^_^"
    assert caption_of(loaded(model, character=False, general_threshold=0.51), wide) == "red theme"


def test_the_model_may_be_the_file_itself(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "copy"))
    (folder / "model.onnx").rename(folder / "wd_fp32.onnx")
    assert caption_of(loaded(folder), RED) == "ruby (rwby), red theme"
    shutil.copy(folder / "wd_fp32.onnx", folder / "wd_int8.onnx")
    assert caption_of(loaded(folder / "wd_int8.onnx"), RED) == "ruby (rwby), red theme"
    with pytest.raises(UserError, match=r"several taggers: wd_fp32\.onnx, wd_int8\.onnx"):
        loaded(folder)


def test_models_with_a_fixed_batch_take_pictures_one_by_one(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "copy"))
    network = onnx.load(folder / "model.onnx")
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(network, folder / "model.onnx")
    assert loaded(folder).captions([RED, GREEN], [Path("x.png")] * 2)[1] == "fern (sousou), green theme"


def cut_list(folder: Path) -> None:
    path = folder / "selected_tags.csv"
    path.write_text("\n".join(path.read_text("utf-8").splitlines()[:-1]), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda folder: (folder / "model.onnx").unlink(), "caption.not_a_model"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"broken"), "caption.model_broken"),
        (lambda folder: (folder / "selected_tags.csv").unlink(), "caption.no_tags"),
        (lambda folder: (folder / "selected_tags.csv").write_text("a,b\n1,2\n"), "caption.no_tags"),
        (lambda folder: (folder / "selected_tags.csv").write_bytes(b"\xff\xfe\x00"), "caption.no_tags"),
        (cut_list, "caption.wrong_tags"),
        (tiny_taggers.pixai_tagger, "caption.wrong_type"),
    ],
)
def test_unusable_taggers_are_refused(change: Callable[[Path], None], code: str, model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "copy"))
    change(folder)
    with pytest.raises(UserError) as caught:
        loaded(folder)
    (problem,) = caught.value.problems
    assert (problem.code, problem.field) == (code, "model")
    assert problem.hint


def test_a_missing_package_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        loaded(model)
