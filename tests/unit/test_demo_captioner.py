"""The built-in captioner, as the command and the page load it, on pictures that it has never seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from trainer.__main__ import main
from trainer.captioners import CAPTIONERS
from trainer.demo import build_captioner
from trainer.demo.world import Scene
from trainer.errors import UserError

SEED = 4711
PICTURES = 12


def count_right(captions: list[str], scenes: list[Scene]) -> int:
    """How many captions name colour and shape of their scene."""
    return sum(f" {scene.colour} {scene.shape} on " in text for scene, text in zip(scenes, captions, strict=True))


def test_the_command_captions_a_folder_right(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    pictures, scenes = build_captioner.held_out(SEED, PICTURES)
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number:02d}.png")
    arguments = ["caption", str(folder), "--captioner", "demo", "--json", "--workspace", str(tmp_path / "workspace")]
    assert main(arguments) == 0
    assert json.loads(capfd.readouterr().out)["written"] == PICTURES
    told = [path.read_text(encoding="utf-8").strip() for path in sorted(folder.glob("*.txt"))]
    assert count_right(told, scenes) >= 11, told


def test_pictures_of_any_size_together_are_captioned_as_one_by_one() -> None:
    kind = CAPTIONERS["demo"]
    captioner = kind.load(kind.parse({"batch_size": PICTURES}))
    pictures, scenes = build_captioner.held_out(SEED + 1, PICTURES)
    large = [picture.resize((512, 512), Image.Resampling.BICUBIC) for picture in pictures]
    together = captioner.captions(large, [Path("x.png")] * PICTURES)
    assert count_right(together, scenes) >= 11, together
    assert [captioner.captions([picture], [Path("x.png")])[0] for picture in large] == together


def test_it_takes_no_other_weights() -> None:
    with pytest.raises(UserError) as caught:
        CAPTIONERS["demo"].parse({"model": "/some/where"})
    assert caught.value.problems[0].field == "model"
