"""DoRA, LoHa and LoKr on every family: the saved file does in Generate, and merged in diffusers, what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny_models import KINDS, plain_pipeline, tiny_model
from trainer.config import LoraSettings, MergedLora, ModelSettings
from trainer.families import load_family
from trainer.families.base import Family
from trainer.generate import Painter
from trainer.lora.adapter import adapter_layers, add_adapters
from trainer.lora.file import LoraFile, network_metadata, write_lora
from trainer.lora.inspect import inspect_lora
from trainer.lora.merge_model import merge_into_model
from trainer.lora.patches import merge_before_training
from trainer.pictures import LoraUse

CPU = torch.device("cpu")


class Quiet:
    """Nobody listens."""

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        pass


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_model(kind, folder / kind) for kind in KINDS}


def load(folder: Path) -> Family:
    return load_family(ModelSettings(base=str(folder)), device=CPU, dtype=torch.float32)


@torch.no_grad()
def answers(model: Family, unet: nn.Module | None = None) -> list[Tensor]:
    """Encoded text, and what the denoiser (or another in its place) answers to unchanging text."""
    text = model.encode_captions(["a red circle"], max_token_length=75, clip_skip=1, weighted=False)
    random = torch.Generator().manual_seed(5)
    noisy, states = torch.randn(1, 4, 8, 8, generator=random), torch.randn(text.hidden_states.shape, generator=random)
    added = {}
    if "pooled" in text.extra:
        added = {"text_embeds": torch.ones_like(text.extra["pooled"]), "time_ids": torch.full((1, 6), 64.0)}
    denoiser: Any = model.denoiser if unet is None else unet
    answer = denoiser(noisy, torch.tensor([500]), encoder_hidden_states=states, added_cond_kwargs=added).sample
    return [text.hidden_states, *text.extra.values(), answer]


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr"])
@pytest.mark.parametrize("base", KINDS)
def test_what_is_saved_does_what_was_trained(base: str, kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    settings = LoraSettings(type=kind, rank=2, alpha=3, conv_rank=2, target="full", train="both")
    model, untouched = load(models[base]), answers(load(models[base]))
    for number, item in enumerate(add_adapters(model, settings, seed=1)):
        random = torch.Generator().manual_seed(number)
        item.parameter.data += torch.randn(item.parameter.shape, generator=random) * 0.1
    expected, layers = answers(model), adapter_layers(model)
    file = tmp_path / "lora.safetensors"
    write_lora(file, LoraFile(layers, network_metadata(layers, model.base_model_version)), precision="float")
    assert all((new - old).norm() / old.norm() > 0.01 for new, old in zip(expected, untouched, strict=True))

    painter = Painter(str(models[base]), CPU)
    painter.use([LoraUse(path=str(file))])
    close(answers(painter.family), expected)
    again = load(models[base])
    merge_before_training(again, [MergedLora(path=str(file))])
    close(answers(again), expected)
    merge_into_model(models[base], [(file, 1.0)], tmp_path / "merged", save_precision="float", events=Quiet())
    close(answers(model, plain_pipeline(tmp_path / "merged").unet)[-1:], expected[-1:])

    told = inspect_lora(file)
    assert told["family"] == model.name and list(told["kinds"]) == [layers[next(iter(layers))].name]
    convolutions = sum(isinstance(module, nn.Conv2d) for module in resnets(model.denoiser))
    assert told["convolutions"] == convolutions
    if base.startswith("sdxl"):
        starts = ("lora_unet_input_", "lora_unet_middle_", "lora_unet_output_", "lora_te1_", "lora_te2_")
        assert all(key.startswith(starts) for key in layers)


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 1e-5


def resnets(unet: nn.Module) -> list[nn.Module]:
    """The layers with 3x3 kernels that a LoRA on everything goes on."""
    names = ("conv1", "conv2", "samplers.0.conv")
    return [module for name, module in unet.named_modules() if name.endswith(names)]
