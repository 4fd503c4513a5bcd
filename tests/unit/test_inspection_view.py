"""What ``inspect`` answers of a real file, as the page shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from lora_samples import lora

from trainer.__main__ import main
from trainer.demo import MODEL_DIR
from trainer.lora.file import LoraFile, write_lora
from ui.lora_tools.inspection import inspection_html


def shown(path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The view's text, without tags."""
    assert main(["inspect", str(path), "--json"]) == 0
    page = inspection_html(json.loads(capfd.readouterr().out))
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_a_lora(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.safetensors"
    metadata = {"ss_base_model_version": "sd_v1", "modelspec.trigger_phrase": "neon <b>", "ss_epoch": "3"}
    write_lora(path, LoraFile(lora(rank=4, alpha=2.0).layers, metadata), precision="fp16")
    text = shown(path, capfd)
    for words in ("Family sd1", "Names kohya", "Kind LoRA", "Rank 4", "Alpha 2", "neon &lt;b&gt;", "Rank 2 keeps"):
        assert words in text, text
    assert "Layers 3: 1 in text_encoder, 2 in unet" in text or "Layers 3: 2 in unet, 1 in text_encoder" in text
    assert "sshs_model_hash" in text
    assert ", right" in text


def test_a_model(capfd: pytest.CaptureFixture[str]) -> None:
    text = shown(MODEL_DIR / "unet" / "diffusion_pytorch_model.safetensors", capfd)
    assert "What it is" in text
    text = shown(MODEL_DIR, capfd)
    assert "Predicts v_prediction" in text
    assert "million numbers" in text
