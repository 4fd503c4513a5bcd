"""The tree of strengths is what a file really has, and presets end exactly what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainer.errors import UserError
from trainer.lora.file import LoraFile, LoraLayer, write_lora
from trainer.lora.keys import kohya_key
from trainer.lora.strengths import parse_strength
from ui.lora_blocks import Place, blocks_of, ended, places_of

UNET = (
    "conv_in",
    "down_blocks.1.attentions.0.proj_in",
    "down_blocks.2.attentions.1.proj_in",
    "mid_block.attentions.0.proj_in",
    "up_blocks.0.attentions.0.proj_in",
    "up_blocks.0.attentions.1.proj_in",
    "up_blocks.0.attentions.2.proj_in",
)
TEXT = ("encoder.layers.0.mlp.fc1", "encoder.layers.10.mlp.fc1", "encoder.layers.2.mlp.fc1")


def modules(*, sdxl: bool) -> list[str]:
    text = [kohya_key("text_encoder", name, sdxl=sdxl) for name in TEXT]
    second = [kohya_key("text_encoder_2", TEXT[0], sdxl=True)] if sdxl else []
    return [*(kohya_key("unet", name, sdxl=sdxl) for name in UNET), *text, *second]


def outline(places: list[Place]) -> dict[str, list[str]]:
    """Labels by name, of places that have some inside."""
    found = {}
    for place in places:
        found[place.name] = [inner.label for inner in place.inside]
        found |= {name: labels for name, labels in outline(place.inside).items() if labels}
    return found


def test_places_of_both_ways_to_name_them() -> None:
    assert outline(places_of(modules(sdxl=False))) == {
        "text_encoder": ["Layer 0", "Layer 2", "Layer 10"],
        "unet": ["Down blocks", "Middle block", "Up blocks"],
        "unet.down_blocks": ["Down 1", "Down 2"],
        "unet.up_blocks": ["Up 0"],
    }
    assert outline(places_of(modules(sdxl=True))) == {
        "text_encoder": ["Layer 0", "Layer 2", "Layer 10"],
        "text_encoder_2": ["Layer 0"],
        "unet": ["Input blocks (down)", "Middle block", "Output blocks (up)"],
        "unet.input_blocks": ["In 0", "In 4", "In 8"],
        "unet.output_blocks": ["Out 0", "Out 1", "Out 2"],
    }
    assert outline(places_of([kohya_key("unet", "conv_out")])) == {"unet": []}


@pytest.mark.parametrize("sdxl", [False, True])
def test_every_name_holds_its_layers_and_no_others(sdxl: bool) -> None:
    """What a slider is called is what ``strengths.py`` makes of its name; outer ones are overruled by inner ones."""
    given = modules(sdxl=sdxl)

    def check(place: Place) -> set[str]:
        held = {module for module in given if parse_strength(f"1,{place.name}:0.5").of(module) == 0.5}
        inside = set().union(*(check(inner) for inner in place.inside))
        assert held and inside <= held, place.name
        for inner in place.inside:
            both = parse_strength(f"1,{place.name}:0.5,{inner.name}:-2")
            assert {module for module in held if both.of(module) == -2} == check(inner)
        return held

    assert set().union(*(check(place) for place in places_of(given))) == set(given)


def test_a_preset_ends_all_but_one_place(tmp_path: Path) -> None:
    layers = {module: LoraLayer(torch.ones(1, 2), torch.ones(2, 1), 1.0) for module in modules(sdxl=True)}
    path = tmp_path / "xl.safetensors"
    write_lora(path, LoraFile(layers, {"ss_base_model_version": "sdxl_base_v1-0"}), precision="float")
    presets = {preset["label"]: preset["ended"] for preset in blocks_of(path)["presets"]}
    assert presets["Image model only"] == ["text_encoder", "text_encoder_2"]
    assert presets["Style of an SDXL picture (B-LoRA)"] == [
        "text_encoder", "text_encoder_2", "unet.input_blocks", "unet.middle_block",
        "unet.output_blocks.0", "unet.output_blocks.2",
    ]  # fmt: skip
    style = parse_strength(",".join(["0.7", *(f"{name}:0" for name in presets["Style of an SDXL picture (B-LoRA)"])]))
    assert [module for module in layers if style.of(module)] == [
        kohya_key("unet", "up_blocks.0.attentions.1.proj_in", sdxl=True)
    ]
    only_unet = places_of([kohya_key("unet", UNET[1])])
    assert list(ended(only_unet, "unet")) == []


def test_a_file_that_is_no_lora(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no LoRA file"):
        blocks_of(tmp_path / "lost.safetensors")
