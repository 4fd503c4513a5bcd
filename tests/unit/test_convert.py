"""LoRAs from form to form and back: the same tensors, and the same effect in diffusers and PEFT themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_models import plain_pipeline, tiny_model
from torch import Tensor, nn

from trainer.lora.convert import Conversion, convert_lora
from trainer.lora.file import LoraFile, network_metadata, read_lora, write_lora
from trainer.lora.keys import kohya_key
from trainer.lora.layers import Layer, LoraLayer

VERSIONS = {"sd1": "sd_v1", "sd2-v": "sd_v2_v", "sdxl": "sdxl_base_v1-0"}
FORMATS: dict[str, Any] = {"sd1": "fp16", "sd2-v": "bf16", "sdxl": "float"}
PRIVATE = {"ss_tag_frequency": '{"5_fox": {"ohwx": 3}}', "modelspec.title": 'Füchse "im" Wald', "ss_steps": "12"}


class Quiet:
    def emit(self, kind: str, step: int = 0, **fields: object) -> None:
        """Nobody listens."""


@pytest.fixture(scope="module", params=list(VERSIONS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pipeline(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return plain_pipeline(tiny_model(kind, tmp_path_factory.mktemp(kind)))


def parts_of(pipeline: Any) -> Iterator[tuple[str, nn.Module]]:
    for part in ("unet", "text_encoder", "text_encoder_2"):
        if getattr(pipeline, part, None) is not None:
            yield part, getattr(pipeline, part)


def random_layer(module: Any, rank: int, alpha: float, random: torch.Generator, *, dora: bool) -> LoraLayer:
    shape = module.weight.shape
    kernel = (1, 1) if len(shape) == 4 else ()
    down = torch.randn(rank, *shape[1:], generator=random) * 0.1
    up = torch.randn(shape[0], rank, *kernel, generator=random) * 0.1
    rows = module.weight.detach().flatten(1).norm(dim=1).reshape(-1, *[1] * (len(shape) - 1))
    magnitude = rows * (1 + 0.2 * torch.rand(rows.shape, generator=random)) if dora else None
    return LoraLayer(down, up, alpha, magnitude)


def sample(pipeline: Any, kind: str, *, dora: bool = False) -> LoraFile:
    """LoRA on all layers of all parts, of two ranks and three alphas, on all layers or on some."""
    random = torch.Generator().manual_seed(7)
    layers: dict[str, Layer] = {}
    for part, model in parts_of(pipeline):
        for number, (path, module) in enumerate(model.named_modules()):
            if isinstance(module, nn.Linear | nn.Conv2d):
                rank = 2 if number % 3 else 4
                layer = random_layer(module, rank, (1.0, 3.0, 0.3)[number % 3], random, dora=dora)
                layers[kohya_key(part, path, sdxl=kind == "sdxl")] = layer
    return LoraFile(layers, {**network_metadata(layers, VERSIONS[kind]), **PRIVATE})


def convert(source: Path, form: Any, out: Path, **options: Any) -> dict[str, Any]:
    return convert_lora(source, out, Conversion(form, **options), events=Quiet())


def content(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata()


def assert_same_file(found: Path, expected: Path) -> None:
    (tensors, metadata), (wanted, wanted_metadata) = content(found), content(expected)
    assert metadata == wanted_metadata
    assert set(tensors) == set(wanted)
    for name, tensor in tensors.items():
        assert tensor.dtype == wanted[name].dtype and torch.equal(tensor, wanted[name]), name


@torch.no_grad()
def outputs(pipeline: Any) -> list[Tensor]:
    """What the parts of the model answer, as it stands."""
    random = torch.Generator().manual_seed(1)
    unet = pipeline.unet
    text = torch.randn(1, 16, unet.config.cross_attention_dim, generator=random)
    noisy, extra = torch.randn(1, 4, 16, 16, generator=random), {}
    if unet.config.addition_embed_type:
        extra = {"added_cond_kwargs": {"text_embeds": torch.ones(1, 40), "time_ids": torch.ones(1, 6)}}
    answers = [unet(noisy, torch.tensor([500]), encoder_hidden_states=text, **extra).sample]
    for part, model in parts_of(pipeline):
        if part != "unet":
            found = model(torch.tensor([[1, 5, 9, 2]]))
            answers.append(found.text_embeds if part == "text_encoder_2" else found.last_hidden_state)
    return answers


@torch.no_grad()
def expected_outputs(pipeline: Any, lora: LoraFile, kind: str) -> list[Tensor]:
    """What the parts answer with the changes added into the weights, in float64, by their definition."""
    kept = {}
    for part, model in parts_of(pipeline):
        for path, module in model.named_modules():
            layer = lora.layers.get(kohya_key(part, path, sdxl=kind == "sdxl"))
            if layer is not None:
                assert isinstance(layer, LoraLayer) and isinstance(module, nn.Linear | nn.Conv2d)
                kept[module] = weight = module.weight.data
                product = layer.up.double().flatten(1) @ layer.down.double().flatten(1) * (layer.alpha / layer.rank)
                whole = weight.double() + product.reshape(weight.shape)
                if layer.magnitude is not None:
                    rows = whole.flatten(1).norm(dim=1).reshape(layer.magnitude.shape)
                    whole = whole * (layer.magnitude.double() / rows)
                module.weight.data = whole.float()
    answers = outputs(pipeline)
    for module, weight in kept.items():
        module.weight.data = weight
    return answers


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5


def test_through_all_forms_and_back_is_the_same_file(pipeline: Any, kind: str, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    write_lora(start, sample(pipeline, kind), precision=FORMATS[kind])
    answer = convert(start, "diffusers", tmp_path / "d.safetensors")
    assert (answer["from"], answer["layers"]) == ("kohya", len(read_lora(start).layers))
    assert convert(tmp_path / "d.safetensors", "peft", tmp_path / "p")["from"] == "diffusers"
    assert convert(tmp_path / "p", "diffusers", tmp_path / "d2.safetensors")["from"] == "peft"
    convert(tmp_path / "d2.safetensors", "kohya", tmp_path / "end.safetensors")
    assert_same_file(tmp_path / "end.safetensors", start)
    assert_same_file(tmp_path / "d2.safetensors", tmp_path / "d.safetensors")
    assert {name.partition(".")[0] for name in load_file(tmp_path / "d.safetensors")} == {
        part for part, _ in parts_of(pipeline)
    }
    assert not [note for note in answer["notes"] if note["lost"]]


@pytest.mark.parametrize("dora", [False, True])
def test_diffusers_does_with_the_file_what_the_layers_say(pipeline: Any, kind: str, dora: bool, tmp_path: Path) -> None:
    lora = sample(pipeline, kind, dora=dora)
    plain, expected = outputs(pipeline), expected_outputs(pipeline, lora, kind)
    write_lora(tmp_path / "k.safetensors", lora, precision="float")
    convert(tmp_path / "k.safetensors", "diffusers", tmp_path / "d.safetensors")
    for one, other in zip(plain, expected, strict=True):
        assert float((one - other).norm() / other.norm()) > 0.01
    pipeline.load_lora_weights(tmp_path, weight_name="d.safetensors")
    try:
        assert_close(outputs(pipeline), expected)
    finally:
        pipeline.unload_lora_weights()
    convert(tmp_path / "d.safetensors", "kohya", tmp_path / "end.safetensors")
    assert_same_file(tmp_path / "end.safetensors", tmp_path / "k.safetensors")


@pytest.mark.parametrize("dora", [False, True])
def test_peft_does_with_the_folder_what_the_layers_say(pipeline: Any, kind: str, dora: bool, tmp_path: Path) -> None:
    lora = sample(pipeline, kind, dora=dora)
    expected = expected_outputs(pipeline, lora, kind)
    write_lora(tmp_path / "k.safetensors", lora, precision="float")
    convert(tmp_path / "k.safetensors", "peft", tmp_path / "p")
    with_adapters = {}
    for part, model in parts_of(pipeline):
        with_adapters[part] = PeftModel.from_pretrained(model, tmp_path / "p" / part)
    try:
        assert_close(outputs(pipeline), expected)
    finally:
        for part, model in with_adapters.items():
            setattr(pipeline, part, model.unload())
