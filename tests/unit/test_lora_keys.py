"""Names of LoRA tensors in every layout."""

from __future__ import annotations

import pytest
from lora_samples import QUERY, TEXT

from trainer.lora.keys import block_of, kohya_key, other_kind, parse_name, part_of, unify_keys

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


@pytest.mark.parametrize(
    ("name", "module", "role"),
    [
        (f"{QUERY}.lora_down.weight", QUERY, "down"),
        (f"{QUERY}.lora_up.weight", QUERY, "up"),
        (f"{QUERY}.lora_mid.weight", QUERY, "mid"),
        (f"{QUERY}.alpha", QUERY, "alpha"),
        (f"unet.{ATTENTION}.to_q.lora_A.weight", QUERY, "down"),
        (f"unet.{ATTENTION}.to_q.lora_B.weight", QUERY, "up"),
        (f"unet.{ATTENTION}.to_q.lora_A.default.weight", QUERY, "down"),
        (f"unet.{ATTENTION}.to_q.lora.down.weight", QUERY, "down"),
        (f"unet.{ATTENTION}.to_q.lora.up.weight", QUERY, "up"),
        (f"unet.{ATTENTION}.to_q.alpha", QUERY, "alpha"),
        (f"unet.{ATTENTION}.processor.to_q_lora.down.weight", QUERY, "down"),
        (f"{ATTENTION}.processor.to_q_lora.up.weight", QUERY, "up"),
        (f"{ATTENTION}.processor.to_out_lora.up.weight", QUERY.replace("to_q", "to_out_0"), "up"),
        (f"base_model.model.{ATTENTION}.to_q.lora_A.weight", QUERY, "down"),
        ("base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight", TEXT, "up"),
        ("base_model.model.encoder.layers.0.self_attn.q_proj.lora_B.weight", TEXT, "up"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight", TEXT, "down"),
        ("text_encoder.encoder.layers.0.self_attn.q_proj.lora_A.weight", TEXT, "down"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.up.weight", TEXT, "up"),
        (
            "text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight",
            TEXT.replace("q_p", "out_p"),
            "up",
        ),
    ],
)
def test_names_of_every_layout_lead_to_the_kohya_key(name: str, module: str, role: str) -> None:
    found = parse_name(name)
    assert found is not None
    assert (found.module, found.role) == (module, role)


@pytest.mark.parametrize("name", ["", "weight", "transformer.x.lora_A.weight", "unet.conv_in.weight", "a.lora_down"])
def test_other_names_are_not_understood(name: str) -> None:
    assert parse_name(name) is None


def test_kohya_key_puts_the_lost_level_of_clip_back() -> None:
    assert kohya_key("unet", f"{ATTENTION}.to_q") == QUERY
    assert kohya_key("text_encoder", "encoder.layers.0.self_attn.q_proj") == TEXT
    assert kohya_key("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj") == TEXT
    assert kohya_key("text_encoder_2", "text_projection") == "lora_te2_text_projection"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{QUERY}.oft_blocks", "OFT"),
        (f"{QUERY}.a1.weight", "GLoRA"),
        (f"{QUERY}.lora_down.weight", None),
        (f"unet.{ATTENTION}.to_q.lora_A.weight", None),
        (f"{QUERY}.dora_scale", None),
        (f"{QUERY}.hada_w1_a", None),
        (f"{QUERY}.lokr_w2_a", None),
    ],
)
def test_other_kinds_of_adapters_are_named(name: str, kind: str | None) -> None:
    assert other_kind(name) == kind


def test_text_prefix_follows_the_family() -> None:
    to_one = {"lora_te1_text_model_x": "lora_te_text_model_x"}
    assert unify_keys(["lora_te1_text_model_x", QUERY], sdxl=False) == to_one
    assert unify_keys(["lora_te_x", "lora_te2_x"], sdxl=False) == {"lora_te_x": "lora_te1_x"}
    assert unify_keys(["lora_te1_x", "lora_unet_input_blocks_4_1_proj_in"], sdxl=False) == {}


def test_the_unet_of_sdxl_is_renamed_where_anything_tells_that_it_is_one() -> None:
    layer, renamed = "lora_unet_down_blocks_1_attentions_0_proj_in", "lora_unet_input_blocks_4_1_proj_in"
    deep = "lora_unet_mid_block_attentions_0_transformer_blocks_9_attn1_to_q"
    assert unify_keys([layer], sdxl=False) == {}
    assert unify_keys([layer], sdxl=True) == {layer: renamed}
    assert unify_keys([layer, "lora_te2_x"], sdxl=False) == {layer: renamed}
    assert unify_keys([layer, deep], sdxl=False)[layer] == renamed


def test_parts_and_blocks() -> None:
    assert (part_of(QUERY), part_of("lora_te1_x"), part_of("lora_te2_x")) == ("unet", "text_encoder", "text_encoder_2")
    assert part_of("lora_other") is None
    assert block_of(QUERY) == "unet down_blocks_0"
    assert block_of(TEXT) == "text_encoder layers_0"
    assert block_of("lora_unet_mid_block_resnets_0_conv1") == "unet mid_block"
    assert block_of("lora_unet_conv_in") == "unet rest"
