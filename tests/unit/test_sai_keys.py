"""SDXL's layer names in files, for every layer of the real UNet, against diffusers' own reading of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import save_file
from torch import nn

from tests.unit.single_file_samples import ldm_unet, sample
from trainer.lora.file import read_lora
from trainer.lora.keys import kohya_key, parse_name, unify_keys
from trainer.lora.sai_keys import from_sai, is_sai_key, to_sai

# unet/config.json of stabilityai/stable-diffusion-xl-base-1.0, where it differs from the class's defaults
CONFIG = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(**CONFIG)


@pytest.fixture(scope="module")
def paths(unet: UNet2DConditionModel) -> list[str]:
    return [path for path, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def test_every_layer_is_found_by_diffusers_under_its_name(unet: UNet2DConditionModel, paths: list[str]) -> None:
    assert len(paths) > 790  # 722 of them in transformers
    state = {}
    for number, path in enumerate(paths):
        key = kohya_key("unet", path, sdxl=True)
        state[f"{key}.lora_down.weight"] = torch.full((1, 1), float(number))
        state[f"{key}.lora_up.weight"] = torch.full((1, 1), float(number))
    assert len(state) == 2 * len(paths)
    read, _ = StableDiffusionXLPipeline.lora_state_dict(state, unet_config=unet.config)
    named = convert_unet_state_dict_to_peft({name.removeprefix("unet."): tensor for name, tensor in read.items()})
    found = {name.removesuffix(".lora_A.weight"): int(tensor) for name, tensor in named.items() if ".lora_A." in name}
    assert found == {path: number for number, path in enumerate(paths)}


def test_the_way_back_gives_diffusers_names(paths: list[str]) -> None:
    for path in paths:
        ours = kohya_key("unet", path)
        assert from_sai(to_sai(ours)) == ours
        assert to_sai(to_sai(ours)) == to_sai(ours) != ours
    assert from_sai("lora_te1_text_model_encoder_layers_0_mlp_fc1") == "lora_te1_text_model_encoder_layers_0_mlp_fc1"


@pytest.mark.parametrize(
    ("path", "name"),
    [  # read off LoRA files of sd-scripts
        (
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
            "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        ),
        ("down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2", "input_blocks_8_1_transformer_blocks_9_ff_net_2"),
        ("mid_block.attentions.0.transformer_blocks.3.attn2.to_k", "middle_block_1_transformer_blocks_3_attn2_to_k"),
        ("up_blocks.0.attentions.2.proj_out", "output_blocks_2_1_proj_out"),
        ("up_blocks.1.upsamplers.0.conv", "output_blocks_5_2_conv"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks_3_0_op"),
        ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks_4_0_skip_connection"),
        ("up_blocks.2.resnets.2.conv2", "output_blocks_8_0_out_layers_3"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block_2_emb_layers_1"),
        ("mid_block.resnets.0.conv1", "middle_block_0_in_layers_2"),
    ],
)
def test_known_names(path: str, name: str) -> None:
    assert kohya_key("unet", path, sdxl=True) == f"lora_unet_{name}"
    assert is_sai_key(f"lora_unet_{name}")
    assert not is_sai_key(kohya_key("unet", path))


@pytest.mark.parametrize("said", ["metadata", "width", "second encoder"])
def test_a_file_in_diffusers_names_is_read_into_those_of_sdxl(tmp_path: Path, said: str) -> None:
    width = 2048 if said == "width" else 64
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {f"unet.{layer}.lora_A.weight": torch.ones(2, width), f"unet.{layer}.lora_B.weight": torch.ones(64, 2)}
    metadata = {"ss_base_model_version": "sdxl_base_v1-0"} if said == "metadata" else None
    if said == "second encoder":
        text = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"
        tensors |= {f"{text}.lora_A.weight": torch.ones(2, 64), f"{text}.lora_B.weight": torch.ones(64, 2)}
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    assert kohya_key("unet", layer, sdxl=True) in read_lora(tmp_path / "x.safetensors").layers


def test_names_in_a_file_that_mixes_them_are_left_as_they_stand(tmp_path: Path) -> None:
    names = ["lora_unet_down_blocks_1_attentions_0_proj_in", "lora_unet_input_blocks_4_1_proj_in"]
    tensors = {f"{name}.{part}.weight": torch.ones(2, 2) for name in names for part in ("lora_down", "lora_up")}
    save_file(tensors, tmp_path / "x.safetensors")
    assert sorted(read_lora(tmp_path / "x.safetensors").layers) == names


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_original_names_of_every_layer_lead_to_the_familys_own(kind: str) -> None:
    """As ComfyUI writes them; the original names are those by which diffusers reads single files."""
    unet = sample(kind)[0].unet
    places = {tensor.data_ptr(): name for name, tensor in unet.state_dict().items()}
    pairs = {name: places[tensor.data_ptr()] for name, tensor in ldm_unet(unet).items() if tensor.ndim > 1}
    modules = {}
    for original, path in pairs.items():
        found = parse_name(f"diffusion_model.{original.removesuffix('.weight')}.lora_up.weight")
        assert found is not None
        modules[found.module] = kohya_key("unet", path.removesuffix(".weight"), sdxl=kind == "sdxl")
    assert len(modules) > 150
    renamed = unify_keys(list(modules), sdxl=False)
    assert {module: renamed.get(module, module) for module in modules} == modules
