"""Pictures and prompts as vectors: tiny real CLIP and DINOv2 models, against their own forward pass in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.tiny_clip import SIDE, tiny_clip, unit
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.evaluating.looks import Looks, mean_cosine

PICTURES = [Image.effect_mandelbrot((SIDE, SIDE), (-2 + part, -1.5, 1, 1.5), 30).convert("RGB") for part in (0, 1, 2)]


def test_clip_gives_its_own_vectors(tmp_path: Path) -> None:
    model, looks = tiny_clip(tmp_path), Looks(str(tmp_path), torch.device("cpu"))
    assert looks.reads
    tokenizer = transformers.CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer")
    prompts = ["a red circle", "blue " * 40]
    tokens = tokenizer(prompts, padding=True, truncation=True, max_length=20, return_tensors="pt")
    mean, std = (np.array(model_values) for model_values in (transformers.image_utils.OPENAI_CLIP_MEAN,
                                                             transformers.image_utils.OPENAI_CLIP_STD))  # fmt: skip
    values = np.stack([(np.asarray(each, np.float64) / 255 - mean) / std for each in PICTURES]).transpose(0, 3, 1, 2)
    output = model(**tokens, pixel_values=torch.from_numpy(values.copy()))
    found = looks.pictures(PICTURES).numpy()
    np.testing.assert_allclose(found, unit(output.image_embeds), atol=1e-4)
    np.testing.assert_allclose(looks.prompts(prompts).numpy(), unit(output.text_embeds), atol=1e-4)
    table = unit(output.image_embeds)
    one_by_one = np.mean([float(a @ b) for a in table[:2] for b in table[1:]])
    vectors = looks.pictures(PICTURES)
    assert mean_cosine(vectors[:2], vectors[1:]) == pytest.approx(one_by_one, abs=1e-4)


def test_dinov2_gives_its_class_token_and_reads_nothing(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = transformers.Dinov2Model(
        transformers.Dinov2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8
        )
    ).eval()
    model.save_pretrained(tmp_path)
    settings = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": SIDE}, "do_normalize": False}
    settings |= {"crop_size": {"height": SIDE, "width": SIDE}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    looks = Looks(str(tmp_path), torch.device("cpu"))
    pixels = torch.from_numpy(np.stack([np.asarray(each, np.float32) / 255 for each in PICTURES]).transpose(0, 3, 1, 2))
    with torch.no_grad():
        expected = model(pixels.contiguous()).last_hidden_state[:, 0]
    assert not looks.reads
    np.testing.assert_allclose(looks.pictures(PICTURES).numpy(), unit(expected), atol=1e-4)


def test_what_cannot_look_is_told_at_its_field(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for given in (str(tmp_path), str(tmp_path / "missing")):
        with pytest.raises(UserError) as caught:
            Looks(given, torch.device("cpu"))
        problem = caught.value.problems[0]
        assert (problem.code, problem.field) == ("evaluation.model", "model") and "CLIP or DINOv2" in problem.hint
