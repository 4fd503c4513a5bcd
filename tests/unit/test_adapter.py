"""LoRA layers on a model: which layers, drawn from the seed, read out, loaded again by diffusers to the same effect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from trainer.config import LoraSettings, ModelSettings
from trainer.config_io import parse_config
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.families import load_family
from trainer.families.base import Conditioning, Family
from trainer.lora.adapter import LayerPlan, adapter_layers, add_adapters, load_into_adapters, plan_layers
from trainer.lora.file import LoraFile, read_lora, write_lora

CPU = torch.device("cpu")


def family(dtype: torch.dtype = torch.float32) -> Family:
    return load_family(ModelSettings(), device=CPU, dtype=dtype)


def adapted(settings: LoraSettings, seed: int = 1, noise_seed: int | None = None) -> Family:
    """A model with adapters; with a noise seed their up parts are random, so that they change something."""
    model = family()
    trainables = add_adapters(model, settings, seed=seed)
    if noise_seed is not None:
        generator = torch.Generator().manual_seed(noise_seed)
        for parameter in (item.parameter for item in trainables if item.is_up):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


@torch.no_grad()
def answer(model: Family, unet: torch.nn.Module | None = None, text: torch.Tensor | None = None) -> torch.Tensor:
    """The denoiser's answer to a fixed question, through the model's own text encoder."""
    states = text if text is not None else encode(model)
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    if unet is not None:
        return unet(noisy, torch.tensor([500]), encoder_hidden_states=states).sample
    return model.predict(noisy, torch.tensor([500]), Conditioning(states, {}), torch.zeros(1, 6))


@torch.no_grad()
def encode(model: Family) -> torch.Tensor:
    return model.encode_captions(["a red circle"], max_token_length=75, clip_skip=1, weighted=False).hidden_states


def test_adapters_start_without_effect_and_in_float32() -> None:
    model = family(torch.bfloat16)
    before = answer(model)
    trainables = add_adapters(model, LoraSettings(rank=4, train="both"), seed=1)
    assert torch.equal(answer(model), before)
    assert {item.part for item in trainables} == {"unet", "text_encoder"}
    trainable = [item.parameter for item in trainables]
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in trainable)
    everything = [*model.denoiser.parameters(), *model.text_encoders["text_encoder"].parameters()]
    assert sum(parameter.requires_grad for parameter in everything) == len(trainable)


def test_the_seed_alone_decides_how_they_start() -> None:
    settings = LoraSettings(rank=4)
    torch.manual_seed(1)
    first = adapter_layers(adapted(settings, seed=3))
    torch.manual_seed(2)
    again, other = adapter_layers(adapted(settings, seed=3)), adapter_layers(adapted(settings, seed=4))
    assert all(torch.equal(first[key].down, again[key].down) for key in first)
    assert not any(torch.equal(first[key].down, other[key].down) for key in first)
    down = first["lora_unet_mid_block_attentions_0_proj_in"].down
    assert down.abs().max() <= 1 / down[0].numel() ** 0.5, "kaiming uniform with a = sqrt(5)"


@pytest.mark.parametrize(
    ("train", "parts"),
    [("unet", {"unet"}), ("text_encoder", {"text_encoder"}), ("both", {"unet", "text_encoder"})],
)
def test_the_part_that_learns(train, parts: set[str]) -> None:
    settings = LoraSettings(rank=2, train=train)
    assert {item.part for item in add_adapters(family(), settings, seed=1)} == parts


def test_ranks_by_block_and_convolution() -> None:
    settings = LoraSettings(
        rank=8,
        alpha=4,
        conv_rank=2,
        conv_alpha=1,
        target="full",
        exclude=["up_blocks"],
        block_ranks={"mid_block": 16, r"down_blocks\.0": 0},
    )
    layers = adapter_layers(adapted(settings))
    shapes = {key: (layer.rank, layer.alpha) for key, layer in layers.items()}
    assert shapes["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"] == (16, 8.0)
    assert shapes["lora_unet_mid_block_resnets_0_conv1"] == (16, 8.0)
    assert shapes["lora_unet_down_blocks_1_resnets_0_conv1"] == (2, 1.0)
    assert shapes["lora_unet_down_blocks_1_resnets_0_time_emb_proj"] == (8, 4.0)
    assert not any("up_blocks" in key or "down_blocks_0" in key for key in shapes)


LARGE_CONVS = r"\.resnets\.\d+\.conv[12]$|samplers\.0\.conv$"


@pytest.fixture(scope="module")
def untouched() -> Family:
    return family()


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        ({"target": "full", "block_ranks": {"mid_block": 8}}, "mid_block"),
        ({"target": "full", "block_ranks": {r"^unet\.up_blocks\.1": 8, "mid_block": 0}}, r"up_blocks\.1"),
        ({"target": "full", "block_ranks": {r"attn1|^text_encoder": 8}}, None),
        ({"target": "full", "block_ranks": {"mid_block": 8}, "exclude": [r"resnets\.1"]}, r"mid_block.resnets\.0"),
        ({"block_ranks": {"mid_block": 8}}, None),
        ({"block_ranks": {r"mid_block.*conv\d": 8}}, "mid_block"),
        ({"block_ranks": {"mid_block": 2, "samplers.*conv": 8}}, "samplers"),
        ({"target": "attention", "block_ranks": {r"(mid|down).*conv[12]$": 8}}, r"(mid_block|down_blocks).*resnets"),
        ({"target": "full"}, None),
    ],
)
def test_a_blocks_own_rank_reaches_its_convolutions_without_a_rank_for_all(
    untouched: Family, options, blocks: str | None
) -> None:
    """Listed by hand: the 3x3 convolutions that are trained, each with the block's rank and full strength."""
    convs = {
        name: layer.rank
        for name, layer in layers_by_path(untouched, LoraSettings(rank=4, alpha=2, **options)).items()
        if re.search(LARGE_CONVS, name)
    }
    expected = {
        name
        for name, layer in untouched.denoiser.named_modules()
        if isinstance(layer, torch.nn.Conv2d)
        and layer.kernel_size == (3, 3)
        and blocks
        and re.search(blocks, name)
        and re.search(LARGE_CONVS, name)
    }
    assert bool(expected) == (blocks is not None)
    assert convs == dict.fromkeys(expected, 8)


def layers_by_path(model: Family, settings: LoraSettings) -> dict[str, LayerPlan]:
    return {layer.name: layer for layer in plan_layers(model, settings)["unet"]}


def test_the_strength_of_convolutions_with_a_rank_of_their_own(untouched: Family) -> None:
    def alpha(**options) -> float:
        settings = LoraSettings(rank=4, alpha=2, target="full", block_ranks={"mid_block": 9}, **options)
        return layers_by_path(untouched, settings)["mid_block.resnets.0.conv1"].alpha

    assert alpha() == 9, "full strength, as with conv_rank"
    assert alpha(conv_alpha=3) == 3
    assert alpha(conv_rank=3) == 9 and alpha(conv_rank=3, conv_alpha=1) == 3, "the strength alpha / rank stays"
    assert alpha(rank_stabilized=True, conv_alpha=2) == 6, "2 / sqrt(9)"


def test_only_included_layers() -> None:
    layers = adapter_layers(adapted(LoraSettings(rank=2, include=[r"attn2\.to_(k|v)$"])))
    assert len(layers) == 32 and all(key.endswith(("attn2_to_k", "attn2_to_v")) for key in layers)


def test_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(UserError, match="no layer"):
        plan_layers(family(), LoraSettings(include=["no such layer"]))


@pytest.mark.parametrize("field", ["include", "exclude"])
def test_a_broken_pattern_is_named(field: str) -> None:
    with pytest.raises(UserError, match=r"'\(' is not a regular expression"):
        parse_config({"lora": {field: ["("]}})


CASES = [
    LoraSettings(rank=4, alpha=2, train="both"),
    LoraSettings(rank=4, alpha=8, train="both", conv_rank=2, conv_alpha=1, target="full"),
]


@pytest.mark.parametrize("settings", CASES)
def test_saved_adapters_have_the_same_effect_in_plain_diffusers(settings: LoraSettings, tmp_path: Path) -> None:
    """Alpha differs from rank, in the text encoder too: diffusers' own save helpers lose that."""
    model = adapted(settings, noise_seed=7)
    file = tmp_path / "lora.safetensors"
    write_lora(file, LoraFile(adapter_layers(model), {}), precision="float")
    plain = StableDiffusionPipeline.from_pretrained(MODEL_DIR, torch_dtype=torch.float32, local_files_only=True)
    untouched = answer(family())
    plain.load_lora_weights(file, use_safetensors=True)
    text, _ = plain.encode_prompt("a red circle", CPU, 1, False)
    theirs, ours = answer(model, unet=plain.unet, text=text), answer(model)
    effect = (ours - untouched).abs().max()
    assert effect > 0.05
    assert (encode(model) - encode(family())).abs().max() > 0.05
    torch.testing.assert_close(text, encode(model), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-3)


def test_going_on_from_a_file_with_another_alpha(tmp_path: Path) -> None:
    model = adapted(LoraSettings(rank=4, alpha=2, train="both"), noise_seed=7)
    file = tmp_path / "lora.safetensors"
    write_lora(file, LoraFile(adapter_layers(model), {}), precision="float")
    again = adapted(LoraSettings(rank=4, alpha=4, train="both", init_from=str(file)))
    torch.testing.assert_close(answer(again), answer(model), atol=1e-5, rtol=1e-4)


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    text_only = adapter_layers(adapted(LoraSettings(rank=4, train="text_encoder")))
    write_lora(file, LoraFile(text_only, {}), precision="float")
    with pytest.raises(UserError, match="none of the layers"):
        load_into_adapters(adapted(LoraSettings(rank=4)), read_lora(file), "lora.safetensors")
    with pytest.raises(UserError, match=r"Set lora.rank to 4"):
        load_into_adapters(adapted(LoraSettings(rank=8, train="both")), read_lora(file), "lora.safetensors")
