"""What inspect tells about a LoRA file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lora_samples import CONV, QUERY, TEXT, linear, lora
from safetensors.torch import load_file, save_file

from trainer.__main__ import main
from trainer.lora.file import LoraFile, write_lora
from trainer.lora.inspect import block_norms, delta_norm, family_of, frequent_tags, inspect_lora


def test_norm_equals_that_of_the_dense_change() -> None:
    for layer in lora(4, -2.0).layers.values():
        assert delta_norm(layer) == pytest.approx(float(layer.delta(torch.float64).norm()), rel=1e-9)


def test_norms_are_given_per_block_in_the_models_order() -> None:
    names = ["up_blocks_1", "mid_block", "down_blocks_10", "down_blocks_2", "down_blocks_2"]
    layers = {
        f"lora_unet_{name}_attentions_{number}_proj_in": linear(2, 1.0, seed=number)
        for number, name in enumerate(names)
    }
    rows = block_norms(LoraFile({**layers, TEXT: linear(2, 1.0, seed=9)}, {}))
    assert [row["block"] for row in rows] == [
        "text_encoder layers_0", "unet down_blocks_2", "unet down_blocks_10", "unet mid_block", "unet up_blocks_1",
    ]  # fmt: skip
    together = [layer.delta(torch.float64).norm() for name, layer in layers.items() if "down_blocks_2" in name]
    assert rows[1]["norm"] == pytest.approx(float(torch.stack(together).norm()))
    assert rows[1]["layers"] == 2


@pytest.mark.parametrize(
    ("metadata", "module", "inputs", "family"),
    [
        ({"ss_base_model_version": "sd_v2_v"}, QUERY, 12, "sd2"),
        ({}, "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 768, "sd1"),
        ({}, "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 1024, "sd2"),
        ({}, "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k", 640, "sdxl"),
        ({}, "lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280, "sdxl"),
        ({}, QUERY, 12, "unknown"),
    ],
)
def test_family(metadata: dict[str, str], module: str, inputs: int, family: str) -> None:
    assert family_of(LoraFile({module: linear(2, 1.0, seed=0, inputs=inputs)}, metadata)) == family


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('{"5_a": {"ohwx": 20, "tree": 3}, "b": {"tree": 30}}', ["tree", "ohwx"]),
        ("{", []),
        ("[]", []),
        ('{"a": 1}', []),
        ('{"a": {"b": "c"}}', []),
    ],
)
def test_frequent_tags(text: str, tags: list[str]) -> None:
    assert frequent_tags({"ss_tag_frequency": text}) == tags


def test_inspect_tells_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.safetensors"
    extra = {"ss_base_model_version": "sd_v1", "modelspec.trigger_phrase": "ohwx fox"}
    sample = LoraFile({**lora(8, 4.0).layers, TEXT: linear(2, 2.0, seed=0)}, extra)
    write_lora(path, sample, precision="fp16")
    save_file({**load_file(path), "bundle.x": torch.ones(1)}, tmp_path / "more.safetensors", metadata=extra)
    info = inspect_lora(tmp_path / "more.safetensors")
    assert (info["family"], info["precision"], info["trigger"]) == ("sd1", "fp16", "ohwx fox")
    assert info["ranks"] == {"2": 1, "8": 2}
    assert info["alphas"] == {"2": 1, "4": 2}
    assert info["parts"] == {"text_encoder": 1, "unet": 2}
    assert info["convolutions"] == 1
    assert info["unknown_keys"] == ["bundle.x"]
    assert main(["inspect", str(tmp_path / "more.safetensors")]) == 0
    shown = capfd.readouterr().out
    assert "ohwx fox" in shown
    assert "kind     LoRA" in shown
    assert "2 (1 layers), 8 (2 layers)" in shown
    assert "not understood: bundle.x" in shown
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["metadata"]["sshs_model_hash"]
    assert CONV.startswith("lora_unet_down_blocks_0")
    assert main(["inspect", str(tmp_path)]) == 2


def test_a_file_that_tells_no_family_is_of_an_unknown_one(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_lora(path, LoraFile({QUERY: linear(2, 1.0, seed=1)}, {}), precision="float")
    assert inspect_lora(path)["family"] == "unknown"
