"""A model's processor with and without torchvision: the same tokens for the same pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers.utils
from PIL import Image

from tests import tiny_captioners
from trainer.captioners import CAPTIONERS
from trainer.errors import UserError

PICTURES = [
    Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))
    for width, height in ((60, 30), (40, 90), (50, 50))
]


def read(kind: str, folder: Path, torchvision: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the captioner's network gets; ``torchvision`` is what is said to be there."""
    monkeypatch.setattr(transformers.utils, "is_torchvision_available", lambda: torchvision)
    captioner: Any = CAPTIONERS[kind].load(CAPTIONERS[kind].parse({"model": str(folder), "prompt": "What is it?"}))
    return captioner.inputs(PICTURES)


def assert_same(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(kind, folder, True, monkeypatch)
    pictures_only = read(kind, folder, False, monkeypatch)
    assert set(whole) == set(pictures_only)
    assert torch.equal(whole["input_ids"], pictures_only["input_ids"])
    assert torch.equal(whole["attention_mask"], pictures_only["attention_mask"])
    assert whole["pixel_values"].shape == pictures_only["pixel_values"].shape
    assert (whole["pixel_values"] - pictures_only["pixel_values"]).abs().max() < 0.1  # they resize alike, not the same


@pytest.mark.parametrize(
    ("architecture", "kind"), [("llava", "joycaption"), ("gemma3", "gemma"), ("idefics3", "smolvlm")]
)
def test_processors_without_a_part_for_videos(
    architecture: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These are the whole ones in both cases."""
    tiny_captioners.ARCHITECTURES[architecture](tmp_path)
    assert_same(kind, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("architecture", "kind"), [("qwen2_5_vl", "qwen_vl"), ("qwen3_vl", "qwen_vl"), ("gemma4", "gemma")]
)
def test_processors_with_a_part_for_videos(
    architecture: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where torchvision is there; the tokens without it are compared with ones by hand in the tests of the chat."""
    pytest.importorskip("torchvision", exc_type=ImportError)
    tiny_captioners.ARCHITECTURES[architecture](tmp_path)
    if architecture == "gemma4":
        save_sound_part(tmp_path)
    assert_same(kind, tmp_path, monkeypatch)


def save_sound_part(folder: Path) -> None:
    transformers.Gemma4AudioFeatureExtractor().save_pretrained(folder / "sound")
    whole = transformers.Gemma4Processor(
        transformers.Gemma4AudioFeatureExtractor(),
        transformers.AutoImageProcessor.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.Gemma4VideoProcessor(),
        chat_template=(folder / "chat_template.jinja").read_text("utf-8"),
    )
    whole.save_pretrained(folder)


@pytest.mark.parametrize("missing", ["tokenizer.json", "preprocessor_config.json"])
def test_missing_parts_are_told(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_captioners.qwen3_vl(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError) as caught:
        read("qwen_vl", tmp_path, False, monkeypatch)
    assert caught.value.problems[0].code == "caption.model_broken"
