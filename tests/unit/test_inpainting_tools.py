"""LoRAs are merged into inpainting models and extracted from them, whose UNet reads nine channels."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from single_file_samples import sd1_pipeline, sd1_weights, small_unet, write_file
from torch import Tensor

from tests.tiny_models import plain_pipeline, tiny_inpainting_model
from trainer.errors import UserError
from trainer.generate import Painter
from trainer.lora.extract import ExtractReport, ExtractSettings, extract_lora
from trainer.lora.file import LoraFile, write_lora
from trainer.lora.keys import kohya_key
from trainer.lora.layers import LoraLayer
from trainer.lora.merge_model import merge_into_model
from trainer.lora.model_weights import open_model
from trainer.runs.events import Events

RATIO, RANK, ALPHA = 0.7, 3, 2.0
PATHS = ("conv_in", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q")
CPU = torch.device("cpu")
QUIET = Events()


def lora_for(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A LoRA file for ``PATHS``; returns what merging adds to each weight, in float64."""
    random = torch.Generator().manual_seed(2)
    layers, added = {}, {}
    for module in PATHS:
        shape = weights[f"{module}.weight"].shape
        up = torch.randn(shape[0], RANK, *[1] * (len(shape) - 2), generator=random) * 0.1
        down = torch.randn(RANK, *shape[1:], generator=random) * 0.1
        layers[kohya_key("unet", module)] = LoraLayer(down, up, ALPHA)
        product = up.double().flatten(1) @ down.double().flatten(1)
        added[f"{module}.weight"] = RATIO * ALPHA / RANK * product.reshape(shape)
    write_lora(path, LoraFile(layers, {}), precision="float")
    return added


def extracted(base: Path, tuned: Path) -> tuple[LoraFile, ExtractReport]:
    settings = ExtractSettings(rank=8, conv_rank=8, clamp_quantile=1.0)
    with open_model(str(base), field="base") as first, open_model(str(tuned), field="tuned") as second:
        return extract_lora(first, second, settings, precision="float", device=CPU, events=QUIET)


def test_into_a_folder_and_out_of_it_again(tmp_path: Path) -> None:
    base = tiny_inpainting_model("sd1", tmp_path)
    before = plain_pipeline(base).unet.state_dict()
    added = lora_for(before, tmp_path / "lora.safetensors")
    merge_into_model(base, [(tmp_path / "lora.safetensors", RATIO)], tmp_path / "merged", events=QUIET)

    merged = plain_pipeline(tmp_path / "merged")
    assert type(merged).__name__ == "StableDiffusionInpaintPipeline"
    for name, value in merged.unet.state_dict().items():
        expected = before[name].double() + added.get(name, 0)
        assert torch.allclose(value.double(), expected, rtol=1e-6, atol=1e-7), name

    lora, report = extracted(base, tmp_path / "merged")
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q" in lora.layers
    found = lora.layers[kohya_key("unet", PATHS[1])].delta(torch.float64)
    assert torch.allclose(found, added[f"{PATHS[1]}.weight"], atol=1e-5)
    assert report.error < 1e-4


@pytest.mark.parametrize("out", ["merged.safetensors", "merged"])
def test_into_a_file(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    unet = small_unet(in_channels=9)
    ordinary = sd1_pipeline()
    parts = SimpleNamespace(unet=unet, vae=ordinary.vae, text_encoder=ordinary.text_encoder)
    base = write_file(tmp_path / "model.safetensors", sd1_weights(parts))
    added = lora_for(unet.state_dict(), tmp_path / "lora.safetensors")
    merge_into_model(base, [(tmp_path / "lora.safetensors", RATIO)], tmp_path / out, events=QUIET)
    if out == "merged":
        read = load_file(tmp_path / out / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"]
        index = json.loads((tmp_path / out / "model_index.json").read_text())
        assert index["_class_name"] == "StableDiffusionInpaintPipeline"
    else:
        read = load_file(tmp_path / out)["model.diffusion_model.input_blocks.0.0.weight"]
    expected = unet.conv_in.weight.double() + added["conv_in.weight"]
    assert torch.allclose(read.double(), expected, rtol=1e-6, atol=1e-7)
    assert Painter(str(tmp_path / out), CPU).family.reads_masks


def test_an_ordinary_model_is_not_the_base_of_one(tmp_path: Path) -> None:
    tiny_inpainting_model("sd1", tmp_path)
    with pytest.raises(UserError, match=r"differ in shape \(unet\.conv_in\.weight"):
        extracted(tmp_path / "ordinary", tmp_path / "model")
