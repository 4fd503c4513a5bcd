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


@pytest.mark.parametrize(
    ("name", "module"),
    [  # as ComfyUI's "Extract and save LoRA" node and LyCORIS' own wrapper write them
        (
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_up.weight",
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
        ),
        ("text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.lora_up.weight", TEXT),
        (
            "text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1.lora_up.weight",
            "lora_te2_text_model_encoder_layers_0_mlp_fc1",
        ),
        (QUERY.replace("lora_unet", "lycoris") + ".lora_up.weight", QUERY),
        (TEXT.replace("lora_te", "lycoris") + ".lora_up.weight", TEXT),
        (f"base_model.model.unet.{ATTENTION}.to_q.lora_B.default.weight", QUERY),
    ],
)
def test_names_of_comfyui_and_lycoris(name: str, module: str) -> None:
    found = parse_name(name)
    assert found is not None
    assert (found.module, found.role) == (module, "up")


def test_the_part_can_be_told_from_outside() -> None:
    name = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight"
    second = TEXT.replace("lora_te_", "lora_te2_")
    for given, module in {"": TEXT, "text_encoder": TEXT, "text_encoder_2": second}.items():
        found = parse_name(name, given)
        assert found is not None and found.module == module
    dora = parse_name(f"unet.{ATTENTION}.to_q.lora_magnitude_vector.default.weight")
    assert dora is not None and (dora.module, dora.role) == (QUERY, "magnitude")


def test_original_names_of_sd1_are_read_into_diffusers_names() -> None:
    """In CompVis' names input_blocks 1, 2, 4, 5, 7, 8 and output_blocks 3 to 11 have transformers."""
    pairs = {
        "input_blocks_1_1_proj_in": "down_blocks_0_attentions_0_proj_in",
        "input_blocks_5_1_proj_out": "down_blocks_1_attentions_1_proj_out",
        "input_blocks_11_0_in_layers_2": "down_blocks_3_resnets_1_conv1",
        "input_blocks_9_0_op": "down_blocks_2_downsamplers_0_conv",
        "middle_block_1_proj_out": "mid_block_attentions_0_proj_out",
        "output_blocks_2_1_conv": "up_blocks_0_upsamplers_0_conv",
        "output_blocks_5_2_conv": "up_blocks_1_upsamplers_0_conv",
        "output_blocks_11_1_proj_in": "up_blocks_3_attentions_2_proj_in",
        "time_embed_2": "time_embedding_linear_2",
    }
    modules = {f"lora_unet_{old}": f"lora_unet_{new}" for old, new in pairs.items()}
    assert unify_keys(["lora_te1_x", *modules], sdxl=False) == {"lora_te1_x": "lora_te_x", **modules}
    assert unify_keys(["lora_unet_input_blocks_4_1_proj_in"], sdxl=False) == {}
