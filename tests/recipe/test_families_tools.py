"""Generate, merge into a model, plan and bench with SD 2 and SDXL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from tests.tiny_models import plain_pipeline, tiny_model
from trainer.__main__ import main
from trainer.bench import measure
from trainer.config import LoraSettings, ModelSettings
from trainer.config_io import parse_config
from trainer.families import load_family
from trainer.generate import Painter
from trainer.lora.adapter import add_adapters
from trainer.lora.file import LoraFile, LoraLayer, read_lora, write_lora
from trainer.lora.merge_model import merge_into_model
from trainer.model_sizes import model_sizes
from trainer.pictures import LoraUse, PictureSettings
from trainer.planner import plan
from trainer.runs.events import Events

CPU = torch.device("cpu")
WEIGHT = 0.7
FAST: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "guidance": 4.0, "seed": 7, "sampler": "euler"}
BOTH = ["sd2-v", "sdxl", "sdxl-v"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_model(kind, folder / kind) for kind in BOTH}


@pytest.fixture(scope="module")
def loras(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random files with all attention layers, some convolutions, and the text encoders."""
    folder = tmp_path_factory.mktemp("loras")
    return {kind: random_lora(models[kind], folder / f"{kind}.safetensors") for kind in BOTH}


def random_lora(model: Path, path: Path) -> Path:
    family = load_family(ModelSettings(base=str(model)), device=CPU, dtype=torch.float32)
    random, layers = torch.Generator().manual_seed(0), {}
    for part, module in {"unet": family.denoiser, **family.text_encoders}.items():
        names = [name for names in family.adapter_targets("attention_ff", conv=True).values() for name in names]
        for name, layer in module.named_modules():
            if name in names:
                down = torch.randn(4, *layer.weight.shape[1:], generator=random) * 0.2
                up = torch.randn(layer.weight.shape[0], 4, *[1] * (layer.weight.ndim - 2), generator=random) * 0.2
                layers[family.lora_key(part, name)] = LoraLayer(down, up, 2.0)
    write_lora(path, LoraFile(layers, {}), precision="float")
    return path


def plain(model: Path, lora: Path | None) -> np.ndarray:
    """A picture by diffusers alone."""
    pipeline = plain_pipeline(model)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    if lora:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="x", use_safetensors=True)
        pipeline.set_adapters(["x"], [WEIGHT])
    picture = pipeline(
        "a red star",
        negative_prompt="green",
        width=64,
        height=64,
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    return np.asarray(picture).astype(int)


def ours(model: Path, lora: Path | None) -> np.ndarray:
    painter = Painter(str(model), CPU)
    painter.use([LoraUse(path=str(lora), weight=WEIGHT)] if lora else [])
    return np.asarray(painter.draw(PictureSettings(prompt="a red star", negative="green", **FAST), 7)).astype(int)


def differ(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


@pytest.mark.parametrize("kind", BOTH)
def test_the_command_draws_what_diffusers_draws(
    kind: str, models: dict[str, Path], loras: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "--prompt", "a red star", "--negative", "green", "--out", str(tmp_path), "--json"]
    arguments += [word for name, value in FAST.items() for word in (f"--{name}", str(value))]
    arguments += ["--model", str(models[kind]), "--lora", f"{loras[kind]}={WEIGHT}"]
    assert main(arguments) == 0
    (picture,) = json.loads(capfd.readouterr().out)["pictures"]
    assert differ(np.asarray(Image.open(picture)).astype(int), plain(models[kind], loras[kind])) <= 1
    assert differ(plain(models[kind], None), plain(models[kind], loras[kind])) > 20


@pytest.mark.parametrize("kind", BOTH)
def test_a_merged_model_is_a_model_of_its_family_that_draws_what_the_lora_draws(
    kind: str, models: dict[str, Path], loras: dict[str, Path], tmp_path: Path
) -> None:
    done = merge_into_model(models[kind], [(loras[kind], WEIGHT)], tmp_path / "out", events=Events())
    assert done["changed_weights"] == len(read_lora(loras[kind]).layers)
    assert differ(plain(tmp_path / "out", None), plain(models[kind], loras[kind])) <= 1
    assert differ(ours(tmp_path / "out", None), ours(models[kind], loras[kind])) <= 1


def test_a_file_of_convolutions_in_diffusers_names_finds_its_layers(models: dict[str, Path], tmp_path: Path) -> None:
    """Nothing in it tells that it is for SDXL; only the model does."""
    unet = plain_pipeline(models["sdxl"]).unet
    random, tensors = torch.Generator().manual_seed(3), {}
    for name, layer in unet.named_modules():
        if isinstance(layer, nn.Conv2d) and ".resnets." in name and "shortcut" not in name:
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(2, *layer.weight.shape[1:], generator=random) * 0.3
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(layer.weight.shape[0], 2, 1, 1, generator=random) * 0.3
    path = tmp_path / "conv.safetensors"
    save_file(tensors, path)
    assert all("_blocks_" in key and "input" not in key for key in read_lora(path).layers if "mid" not in key)
    assert differ(ours(models["sdxl"], path), plain(models["sdxl"], path)) <= 1
    assert differ(ours(models["sdxl"], path), ours(models["sdxl"], None)) > 20
    done = merge_into_model(models["sdxl"], [(path, WEIGHT)], tmp_path / "out", events=Events())
    assert done["changed_weights"] == len(tensors) // 2
    assert differ(plain(tmp_path / "out", None), plain(models["sdxl"], path)) <= 1
    settings = LoraSettings(rank=2, alpha=2, conv_rank=2, init_from=str(path))
    family = load_family(ModelSettings(base=str(models["sdxl"])), device=CPU, dtype=torch.float32)
    add_adapters(family, settings, seed=0)
    ups = [layer.lora_B["default"].weight for layer in family.denoiser.modules() if hasattr(layer, "lora_B")]
    assert sum(bool(up.any()) for up in ups) == len(tensors) // 2


@pytest.mark.parametrize("kind", BOTH)
def test_sizes_are_those_of_what_is_loaded(kind: str, models: dict[str, Path]) -> None:
    settings = LoraSettings(rank=4, conv_rank=2, target="full", train="both", exclude=[r"text_model\.encoder.*fc1"])
    base = ModelSettings(base=str(models[kind]))
    sizes, family = model_sizes(base, settings), load_family(base, device=CPU, dtype=torch.float32)
    encoders = family.text_encoders.values()
    assert sizes.text == sum(parameter.numel() for encoder in encoders for parameter in encoder.parameters())
    assert sizes.denoiser == sum(parameter.numel() for parameter in family.denoiser.parameters())
    assert sizes.text_width == sum(encoder.config.hidden_size for encoder in encoders)
    assert sizes.lora == sum(each.parameter.numel() for each in add_adapters(family, settings, seed=0))


def test_the_check_before_the_start_counts_sdxl(models: dict[str, Path], pictures: Path) -> None:
    config = parse_config(
        {
            "model": {"base": str(models["sdxl"])},
            "dataset": {"sources": [{"path": str(pictures)}], "resolution": 64},
            "lora": {"train": "both"},
        }
    )
    report = plan(config)
    assert report.pictures == 3
    assert "the model's files" in report.estimate.vram_note


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
def test_a_step_of_a_random_model_is_measured(name: str) -> None:
    config = parse_config(
        {
            "model": {"family": name},
            "dataset": {"resolution": 64, "cache": {"to_disk": False}},
            "lora": {"train": "both"},
            "train": {"max_steps": 2},
        }
    )
    answer = measure(config, size="demo", model_given=False, events=Events())
    assert (answer.family, answer.steps) == (name, 2)
