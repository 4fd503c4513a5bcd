"""Every captioner of the list, and that a file more is a captioner more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from trainer import captioners
from trainer.captioners import CAPTIONERS, kinds
from trainer.errors import UserError
from ui.fields import fields_of

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

MINE = '''
"""Captions with the size of the picture."""

from trainer.captioners.base import CaptionerKind, CaptionerOptions
from trainer.config_base import setting


class Options(CaptionerOptions):
    """How it is written."""

    times: str = setting("x", "Between width and height", basic=True)
    """Such as by."""


class Sizes:
    def __init__(self, options):
        self.times = options.times

    def captions(self, images, paths):
        return [f"{image.width} {self.times} {image.height}" for image in images]


KIND = CaptionerKind(label="Sizes", about="Says how large a picture is.", style="text", options=Options, load=Sizes)
'''


def test_a_captioner_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sizes_of_pictures.py").write_text(MINE, encoding="utf-8")
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    found = captioners._found()
    assert set(found) == {*CAPTIONERS, "sizes_of_pictures"}
    kind = found["sizes_of_pictures"]
    captioner = kind.load(kind.parse({"times": "by"}))
    assert captioner.captions([Image.new("RGB", (3, 2))], [Path("x.png")]) == ["3 by 2"]
    assert [field.label for field in fields_of(kind.options)] == ["Pictures at a time", "Between width and height"]
    with pytest.raises(UserError, match="times"):
        kind.parse({"times": 3})


@pytest.mark.parametrize("name", CAPTIONERS)
def test_the_page_can_show_it(name: str) -> None:
    """It says what it does; each option has a default, a label and a text, and is no raw YAML."""
    kind = CAPTIONERS[name]
    assert kind.label
    assert kind.about.endswith(".")
    assert kind.parse({}) == kind.options()
    for field in fields_of(kind.options):
        assert field.help.endswith((".", ":")), f"{field.name}: {field.help}"
        assert field.help.count("*") < 2, "the page takes what is between two for emphasis"
        assert field.kind != "yaml", field.name
        assert field.label[0].isupper()
    model = getattr(kind.options(), "model", None)
    assert model is None or HUB_ID.fullmatch(model)


def test_labels_are_told_apart() -> None:
    labels = [kind.label for kind in CAPTIONERS.values()]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("name", [name for name, kind in CAPTIONERS.items() if hasattr(kind.options(), "model")])
def test_absent_weights_say_how_to_get_them(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each with its own usual model, on a machine that may not download."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    kind = CAPTIONERS[name]
    options = kind.parse({})
    with pytest.raises(UserError) as caught:
        kind.load(options)
    (problem,) = caught.value.problems
    assert (problem.code, problem.field) == ("caption.model_not_found", "model")
    assert f"hf download {options.model}" in problem.hint  # type: ignore[attr-defined]
