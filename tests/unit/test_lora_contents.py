"""What the header of a LoRA file tells, against the file read whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from lora_samples import CONV, QUERY, TEXT, conv, linear, lora
from safetensors.torch import save_file

from trainer.errors import UserError
from trainer.lora.contents import lora_contents
from trainer.lora.file import LoraFile, read_lora, write_lora
from trainer.lora.layers import LohaLayer, LokrLayer, LoraLayer


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


MIXED = LoraFile(
    {
        QUERY: linear(4, 2.0, seed=1),
        CONV: conv(6, 6.0, seed=2),
        TEXT: LoraLayer(numbers(2, 8), numbers(8, 2), 1.0, magnitude=torch.ones(8, 1)),
        QUERY.replace("to_q", "to_k"): LohaLayer(numbers(10, 3), numbers(3, 12), numbers(10, 3), numbers(3, 12), 1.0),
        QUERY.replace("to_q", "to_v"): LokrLayer(1.0, lokr_w1=numbers(2, 3), lokr_w2=numbers(5, 4)),
    },
    {"ss_base_model_version": "sd_v1", "modelspec.trigger_phrase": "neon"},
)


def test_it_agrees_with_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "mixed.safetensors"
    write_lora(path, MIXED, precision="fp16")
    contents, read = lora_contents(path), read_lora(path)
    assert {module: layer.kind for module, layer in contents.layers.items()} == {
        module: layer.name for module, layer in read.layers.items()
    }
    ranks = {module: layer.rank for module, layer in contents.layers.items() if layer.rank is not None}
    assert ranks == {module: layer.rank for module, layer in read.layers.items() if module in ranks}
    assert len(ranks) == 4  # the LoKr of two whole factors has none
    assert contents.parts == Counter(unet=4, text_encoder=1)
    assert contents.metadata["modelspec.trigger_phrase"] == "neon"
    assert (contents.naming, contents.family, contents.bytes_per_number) == ("kohya", "sd1", 2)
    plain = read.layers[CONV]
    assert contents.layers[CONV].values_per_rank * 6 == sum(tensor.numel() for tensor in plain.tensors().values())


@pytest.mark.parametrize(
    ("before", "after", "naming"),
    [
        ("", ".lora_A.weight .lora_B.weight", "diffusers"),
        ("base_model.model.", ".lora_A.weight .lora_B.weight", "PEFT"),
        ("", ".lora.down.weight .lora.up.weight", "diffusers, old"),
    ],
)
def test_other_names(tmp_path: Path, before: str, after: str, naming: str) -> None:
    stem = f"{before}unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    down, up = after.split()
    path = tmp_path / "named.safetensors"
    save_file({stem + down: numbers(4, 2048), stem + up: numbers(640, 4), "odd.name": numbers(1)}, path)
    contents = lora_contents(path)
    assert contents.naming == naming
    assert contents.family == "sdxl"  # by the width of the text that the layer reads
    assert set(contents.layers) == set(read_lora(path).layers)
    assert contents.unknown == ["odd.name"]
    assert contents.ranks == [4]


def test_what_is_none_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match="There is no LoRA file"):
        lora_contents(path)
    save_file({"model.weight": numbers(2)}, path)
    with pytest.raises(UserError, match="holds no LoRA layers"):
        lora_contents(path)
    save_file({"lora_unet_x.oft_blocks": numbers(2)}, path)
    with pytest.raises(UserError, match="is of the kind OFT"):
        lora_contents(path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="header"):
        lora_contents(path)
    write_lora(path, lora(), precision="float")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="cut off"):
        lora_contents(path)
