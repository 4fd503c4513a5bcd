"""Help beside the form: words from real LoRA headers, sizes from real model files."""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr
import pytest
import torch

from tests.unit.single_file_samples import write_file
from trainer.errors import UserError
from trainer.files import write_json
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.generate.hints import MOST_TAGS, SizeHints, WordHints, words_of
from ui.generate.native_size import native_side

LORA = {"lora_unet_mid_block_x.lora_down.weight": torch.zeros(4, 8)}
CLIP = "cond_stage_model.transformer.text_model.x"
XL = {"conditioner.embedders.0.transformer.x", "conditioner.embedders.1.model.x"}


def checkpoint(path: Path, *texts: str) -> Path:
    names = ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight", *texts]
    weights = {name: torch.zeros(1) for name in names}
    weights["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(8, 4, 3, 3)
    return write_file(path, weights)


def test_words_with_their_reasons_and_tags_with_their_counts(tmp_path: Path) -> None:
    tags = {"10_ohwx woman": {"ohwx woman": 20, "smile": 12, "hat": 3} | {f"tag {n}": 1 for n in range(40)}}
    metadata = {"modelspec.trigger_phrase": "ohwx woman", "ss_tag_frequency": json.dumps(tags)}
    found = words_of(write_file(tmp_path / "a.safetensors", LORA, metadata))
    assert found["words"][0][0] == "ohwx woman" and "the file names it" in found["words"][0][1]
    assert found["tags"][:2] == [("smile", 12), ("hat", 3)]
    assert len(found["tags"]) == MOST_TAGS
    assert "ohwx woman" not in [tag for tag, _ in found["tags"]], "that is offered already"
    assert words_of(write_file(tmp_path / "b.safetensors", LORA)) == {"words": [], "tags": []}


def test_only_loras_that_the_page_may_read_are_looked_into(tmp_path: Path) -> None:
    context = AppContext(Workspace(tmp_path / "workspace"))
    named = {"modelspec.trigger_phrase": "<b>ohwx</b>"}
    inside = context.workspace.models_dir / "neon.safetensors"
    inside.parent.mkdir(parents=True)
    write_file(inside, LORA, named)
    outside = write_file(tmp_path / "outside.safetensors", LORA, named)
    broken = context.workspace.models_dir / "broken.safetensors"
    broken.write_bytes(b"no LoRA")
    with gr.Blocks():
        hints = WordHints(context)
    told = json.loads(hints._shown(str(inside), str(inside), str(outside), str(broken), None)["loras"])
    assert [(each["name"], each["words"][0][0]) for each in told] == [("neon", "<b>ohwx</b>")]
    with gr.Blocks():
        sizes = SizeHints(context)
    assert sizes._size("demo") == {"side": 128}
    assert sizes._size(str(outside)) == {"side": None}


def test_the_size_a_model_was_trained_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native_side("demo") == 128
    write_json(tmp_path / "folder" / "unet" / "config.json", {"sample_size": 96})
    write_json(tmp_path / "folder" / "vae" / "config.json", {"block_out_channels": [128, 256, 512, 512]})
    assert native_side(str(tmp_path / "folder")) == 768
    assert native_side(str(checkpoint(tmp_path / "one.safetensors", CLIP))) == 512
    assert native_side(str(checkpoint(tmp_path / "xl.safetensors", *XL))) == 1024
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert [native_side(name) for name in ("somebody/dream-XL", "stabilityai/stable-diffusion-2-1", "a/b")] == [
        1024,
        768,
        512,
    ]
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    for wrong in (tmp_path / "broken.safetensors", tmp_path / "missing", tmp_path):
        assert native_side(str(wrong)) is None
    with pytest.raises(UserError):
        words_of(tmp_path / "broken.safetensors")
