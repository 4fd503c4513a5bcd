"""How captions are encoded for training: by the settings, learned or not, cached or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.conditioning import caption_encoder
from trainer.config_io import parse_config
from trainer.data.text_plan import plan_texts
from trainer.families import FAMILIES
from trainer.families.base import Family
from trainer.runs.events import Events

CAPTION = "a (big:1.4) red circle" + ", and one more" * 30
WAYS: dict[str, dict[str, Any]] = {
    "learned": {"lora": {"train": "both"}},
    "each time": {"dataset": {"cache": {"text": False}}},
    "cached": {"dataset": {"cache": {"to_disk": False}}},
}


@pytest.fixture(scope="module")
def family() -> Family:
    torch.manual_seed(0)
    return FAMILIES["sd1"].random("demo", device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("clip_skip", [1, 2])
def test_captions_are_read_as_the_settings_say(family: Family, tmp_path: Path, way: str, clip_skip: int) -> None:
    captions = {"max_token_length": 150, "weighted": True}
    dataset = {**WAYS[way].get("dataset", {}), "captions": captions}
    config = parse_config({**WAYS[way], "dataset": dataset, "train": {"clip_skip": clip_skip}})
    encode = caption_encoder(family, config, plan_texts(config, [CAPTION], True, 0), tmp_path, Events(), lambda: None)
    found = encode([CAPTION]).hidden_states
    expected = family.encode_captions([CAPTION], max_token_length=150, clip_skip=clip_skip, weighted=True)
    assert torch.equal(found, expected.hidden_states)
    for other in ({"clip_skip": 3 - clip_skip}, {"max_token_length": 75}, {"weighted": False}):
        asked: dict[str, Any] = {"max_token_length": 150, "clip_skip": clip_skip, "weighted": True, **other}
        states = family.encode_captions([CAPTION], **asked).hidden_states
        assert states.shape != found.shape or not torch.allclose(states, found, atol=1e-4), "each of them matters"
