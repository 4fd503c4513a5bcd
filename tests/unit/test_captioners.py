"""Captioners: the real BLIP path on a tiny trained model, and captioners without one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import tiny_blip
from trainer.captioners import CAPTIONERS
from trainer.captioners.base import Captioner
from trainer.errors import UserError


def loaded(name: str, **options: Any) -> Captioner:
    kind = CAPTIONERS[name]
    return kind.load(kind.parse(options))


def caption_of(captioner: Captioner, image: Image.Image | None = None, path: str = "x.png") -> str:
    (text,) = captioner.captions([image or Image.new("RGB", (1, 1))], [Path(path)])
    return text


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_blip.build(tmp_path_factory.mktemp("blip"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("golden_retriever-012.jpg", "golden retriever"),
        ("a cat (3).png", "a cat"),
        ("IMG_0001.jpg", "IMG"),
        ("0001.png", "0001"),
        ("cat.png", "cat"),
    ],
)
def test_file_names(name: str, expected: str) -> None:
    assert caption_of(loaded("filename"), path=name) == expected


def test_the_fixed_text_must_be_given() -> None:
    assert caption_of(loaded("fixed", prompt=" a dog ")) == "a dog"
    with pytest.raises(UserError) as caught:
        loaded("fixed", prompt=" ")
    assert caught.value.problems[0].code == "caption.no_text"


@pytest.mark.parametrize("prompt", ["", "a photo of"])
def test_blip_says_what_it_sees(prompt: str, blip_folder: Path) -> None:
    captioner = loaded("blip", model=str(blip_folder), prompt=prompt)
    images = [tiny_blip.plain_picture(colour) for colour in tiny_blip.COLOURS]
    expected = [f"a photo of a {colour} picture" for colour in tiny_blip.COLOURS]
    assert captioner.captions(images, [Path("x.png")] * len(images)) == expected
    assert caption_of(captioner, images[0]) == expected[0]


def copied(source: Path, target: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(source, target)
    change(target)
    return target


def set_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda folder: (folder / "config.json").unlink(), "caption.not_a_model"),
        (lambda folder: set_config(folder, auto_map={"AutoModel": "evil.Model"}), "caption.own_code"),
        (lambda folder: set_config(folder, text_config={"_attn_implementation": "evil/kernels"}), "caption.own_code"),
        (lambda folder: set_config(folder, model_type="llava"), "caption.wrong_type"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"), "caption.no_safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"broken"), "caption.model_broken"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "caption.model_broken"),
    ],
)
def test_unusable_weights_are_refused(
    change: Callable[[Path], None], code: str, blip_folder: Path, tmp_path: Path
) -> None:
    folder = copied(blip_folder, tmp_path / "model", change)
    with pytest.raises(UserError) as caught:
        loaded("blip", model=str(folder))
    assert caught.value.problems[0].code == code
    assert caught.value.problems[0].field == "model"


@pytest.mark.parametrize("model", ["Salesforce/blip-image-captioning-base", "no/where/at-all", "/no/such/folder"])
def test_absent_weights_say_how_to_get_them(model: str) -> None:
    with pytest.raises(UserError) as caught:
        loaded("blip", model=model)
    problem = caught.value.problems[0]
    assert problem.code == "caption.model_not_found"
    assert problem.hint


def test_the_list_of_captioners_needs_no_torch() -> None:
    heavy = {"torch", "transformers", "onnxruntime"}
    code = f"import sys, trainer.captioners; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
