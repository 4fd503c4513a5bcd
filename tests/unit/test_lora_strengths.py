"""Strengths of a LoRA: one number, and others for parts and blocks, in every family's names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.lora.strengths import Strength, names_of, parse_lora, parse_loras, parse_strength

ROOT = Path(__file__).resolve().parents[2]
SD1 = {
    "conv_in": "lora_unet_conv_in",
    "down": "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
    "down_size": "lora_unet_down_blocks_0_downsamplers_0_conv",
    "last_down": "lora_unet_down_blocks_3_resnets_1_conv1",
    "mid": "lora_unet_mid_block_attentions_0_proj_in",
    "up": "lora_unet_up_blocks_1_attentions_2_proj_in",
    "up_size": "lora_unet_up_blocks_0_upsamplers_0_conv",
    "time": "lora_unet_time_embedding_linear_1",
    "text": "lora_te_text_model_encoder_layers_1_mlp_fc1",
    "late_text": "lora_te_text_model_encoder_layers_11_mlp_fc1",
}
SDXL = {
    "down": "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
    "mid": "lora_unet_middle_block_1_proj_in",
    "up": "lora_unet_output_blocks_2_1_proj_in",
    "up_size": "lora_unet_output_blocks_2_2_conv",
    "resnet": "lora_unet_input_blocks_4_0_in_layers_2",
    "first": "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
    "second": "lora_te2_text_model_encoder_layers_0_self_attn_q_proj",
}


def test_a_number_is_for_every_layer() -> None:
    for text, value in (("0.8", 0.8), ("-1.5", -1.5), (" 3 ", 3.0), ("1e-3", 0.001), ("0", 0.0)):
        strength = parse_strength(text)
        assert strength.is_uniform
        assert {strength.of(module) for module in (*SD1.values(), *SDXL.values(), "anything")} == {value}


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("unet", {"conv_in", "down", "down_size", "last_down", "mid", "up", "up_size", "time"}),
        ("text_encoder", {"text", "late_text"}),
        ("text_encoder.layers.1", {"text"}),  # not layer 11
        ("text_encoder.text_model.encoder.layers.11", {"late_text"}),
        ("unet.down_blocks", {"down", "down_size", "last_down"}),
        ("unet.down_blocks.1", {"down"}),
        ("unet.down_blocks_1", {"down"}),  # as inspect's table writes it
        ("unet down_blocks_1", {"down"}),
        ("unet.mid_block", {"mid"}),
        ("unet.up_blocks.1.attentions.2", {"up"}),
        ("unet.conv_in", {"conv_in"}),
        ("BASE", {"text", "late_text"}),
        ("IN00", {"conv_in"}),
        ("IN03", {"down_size"}),
        ("IN04", {"down"}),
        ("IN11", {"last_down"}),
        ("MID", {"mid"}),
        ("OUT02", {"up_size"}),
        ("OUT05", {"up"}),
        ("unet.output_blocks.5", {"up"}),
    ],
)
def test_names_of_sd1(name: str, held: set[str]) -> None:
    """LBW's numbers follow CompVis' blocks: three to a level, the third of which changes the size."""
    strength = parse_strength(f"1,{name}:0.25")
    assert {place for place, module in SD1.items() if strength.of(module) == 0.25} == held


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("text_encoder", {"first"}),
        ("text_encoder_2", {"second"}),
        ("text_encoder_2.layers.0", {"second"}),
        ("BASE", {"first", "second"}),
        ("unet.input_blocks.4", {"down", "resnet"}),
        ("unet.input_blocks.4.1", {"down"}),
        ("unet.down_blocks.1", {"down", "resnet"}),
        ("unet.down_blocks.1.resnets.0", {"resnet"}),
        ("unet.middle_block", {"mid"}),
        ("unet.mid_block.attentions.0", {"mid"}),
        ("IN04", {"down", "resnet"}),
        ("MID", {"mid"}),
        ("OUT02", {"up", "up_size"}),
    ],
)
def test_names_of_sdxl(name: str, held: set[str]) -> None:
    """Files have Stability's names for the UNet; both those and diffusers' are understood."""
    strength = parse_strength(f"1,{name}:0.25")
    assert {place for place, module in SDXL.items() if strength.of(module) == 0.25} == held


def test_the_name_that_says_most_counts_whatever_the_order() -> None:
    names = ["unet:2", "unet.down_blocks:3", "unet.down_blocks.1:4", "IN04:5", "unet.down_blocks.1.attentions.0:6"]
    for count in range(len(names)):
        for order in (names[: count + 1], names[count::-1]):
            strength = parse_strength(",".join(["1", *order]))
            assert strength.of(SD1["down"]) == count + 2
            assert strength.of(SD1["text"]) == 1
    sdxl = parse_strength("1,unet.input_blocks.4.1:3,IN04:2,text_encoder:0,BASE:9")
    assert [sdxl.of(SDXL[place]) for place in ("down", "resnet", "first", "second")] == [3, 2, 0, 9]


def test_what_is_written_reads_back() -> None:
    for text in ("0.8", "-2,text_encoder:0,unet.mid_block:1.2,IN04:1e-05", "1e+30"):
        assert str(parse_strength(text)) == text
        assert parse_strength(str(parse_strength(text))) == parse_strength(text)
    assert Strength(0.1 + 0.2).of("x") == parse_strength(str(Strength(0.1 + 0.2))).of("x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["''"]),
        ("nan", ["'nan'"]),
        ("1e999", ["'1e999'"]),
        ("-inf", ["'-inf'"]),
        ("text_encoder:0", ["'text_encoder:0'"]),
        ("1,", ["''"]),
        ("1,unet", ["'unet'"]),
        ("1,unet:x", ["'unet:x'"]),
        ("1,:2", ["':2'"]),
        ("1,unet:inf", ["'unet:inf'"]),
        ("1,vae:2", ["'vae'"]),
        ("1,IN1:2", ["'IN1'"]),
        ("1,unet:1,unet:2", ["'unet' twice"]),
        ("1,MID:1,unet.mid_block:2", ["'unet.mid_block' twice"]),
        ("x,unet:y,vae:1", ["'x'", "'unet:y'", "'vae'"]),
    ],
)
def test_wrong_strengths_are_told_all_at_once(text: str, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_strength(text, "--lora a=...")
    assert len(caught.value.problems) == len(said)
    for problem, words in zip(caught.value.problems, said, strict=True):
        assert words in problem.message
        assert problem.message.startswith("--lora a=... ")
        assert problem.field == "lora"


def test_a_file_and_its_strength() -> None:
    assert parse_lora("a=b,c:1.safetensors=0.5,unet:0") == (Path("a=b,c:1.safetensors"), Strength(0.5, (("unet", 0),)))
    assert parse_loras(["a=1", "b=-2"]) == [(Path("a"), Strength(1)), (Path("b"), Strength(-2))]
    with pytest.raises(UserError) as caught:
        parse_loras(["a", "=1", "b=x", "c=1"])
    assert [problem.code for problem in caught.value.problems] == ["cli.pair", "cli.pair", "lora.strength"]


def test_names_that_a_file_lacks_are_told_with_those_it_has() -> None:
    parse_strength("1,MID:0,text_encoder.layers.1:2,unet:1").check(SD1.values(), "a.safetensors")
    with pytest.raises(UserError) as caught:
        parse_strength("1,unet.mid_blok:0,text_encoder_2:1,unet:1").check(SD1.values(), "a.safetensors")
    (problem,) = caught.value.problems
    assert problem.message == "a.safetensors has no unet.mid_blok and no text_encoder_2."
    names = "text_encoder, text_encoder.layers.1, text_encoder.layers.11, unet, unet.down_blocks.0"
    assert problem.hint.startswith(f"It has {names}")


def test_the_names_there_are_can_be_used() -> None:
    for modules in (SD1, SDXL):
        for name in names_of(modules.values()):
            strength = parse_strength(f"1,{name}:0.5")
            strength.check(modules.values(), "a.safetensors")
    assert "unet.input_blocks.4" in names_of(SDXL.values())
    assert "unet.mid_block" in names_of(SD1.values())


def test_no_torch_is_needed() -> None:
    code = "import sys, trainer.lora.strengths; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_home_of_nobody_stays_as_it_is_written() -> None:
    path, _ = parse_lora("~nobody-of-this-name/a.safetensors=0.5")
    assert path == Path("~nobody-of-this-name/a.safetensors")
    assert parse_lora("~/a.safetensors=1")[0] == Path.home() / "a.safetensors"
