"""LoRA files as other programs write them, through every form: names, alphas, kinds, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_samples import CONV, QUERY, TEXT, linear, lora
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_convert import convert
from torch import Tensor

from trainer.__main__ import main
from trainer.errors import UserError
from trainer.lora.file import LoraFile, read_lora, write_lora
from trainer.lora.layers import LohaLayer, LokrLayer, LoraLayer
from trainer.lora.low_rank import as_lora

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
LDM_ATTENTION = "input_blocks.4.1.transformer_blocks.0.attn1"
Tensors = dict[str, Tensor]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) * 100 + seed))


def pair(stem: str, down: str = "lora_down.weight", up: str = "lora_up.weight", rank: int = 3) -> Tensors:
    seed = sum(map(ord, stem))
    return {f"{stem}.{down}": numbers(rank, 8, seed=seed), f"{stem}.{up}": numbers(6, rank, seed=seed)}


def kohya(stem: str) -> Tensors:
    return {**pair(stem), f"{stem}.alpha": torch.tensor(1.5)}


PEERS: dict[str, tuple[str, Callable[[], Tensors]]] = {
    "kohya": ("kohya", lambda: {**kohya(QUERY), **kohya(TEXT)}),
    "kohya, one text encoder called first": ("kohya", lambda: {**kohya(QUERY), **kohya(TEXT.replace("te_", "te1_"))}),
    "kohya for SDXL": (
        "kohya",
        lambda: {**kohya("lora_unet_input_blocks_4_1_proj_in"), **kohya(TEXT.replace("te_", "te2_"))},
    ),
    "kohya for SDXL with diffusers' names": (
        "kohya",
        lambda: {**kohya("lora_unet_down_blocks_1_attentions_0_proj_in"), **kohya(TEXT.replace("te_", "te2_"))},
    ),
    "ComfyUI": (
        "comfyui",
        lambda: {
            **pair(f"diffusion_model.{LDM_ATTENTION}.to_q"),
            **pair("text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1"),
        },
    ),
    "ComfyUI for SD 1": (
        "comfyui",
        lambda: {
            **pair("diffusion_model.input_blocks.1.1.proj_in"),
            **pair("diffusion_model.output_blocks.2.1.conv"),
            **pair("text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1"),
        },
    ),
    "LyCORIS' wrapper": ("lycoris", lambda: kohya(QUERY.replace("lora_unet", "lycoris"))),
    "diffusers": (
        "diffusers",
        lambda: {
            **pair(f"unet.{ATTENTION}.to_q", "lora_A.weight", "lora_B.weight"),
            **pair("text_encoder.text_model.encoder.layers.0.mlp.fc1", "lora_A.weight", "lora_B.weight"),
        },
    ),
    "diffusers 0.22": (
        "old diffusers",
        lambda: {
            **pair(f"unet.{ATTENTION}.to_out.0", "lora.down.weight", "lora.up.weight"),
            **pair(
                "text_encoder.text_model.encoder.layers.0.mlp.fc1",
                "lora_linear_layer.down.weight",
                "lora_linear_layer.up.weight",
            ),
        },
    ),
    "diffusers before": (
        "old diffusers",
        lambda: pair(f"{ATTENTION}.processor", "to_out_lora.down.weight", "to_out_lora.up.weight"),
    ),
    "PEFT": ("peft", lambda: pair(f"base_model.model.{ATTENTION}.to_q", "lora_A.weight", "lora_B.weight")),
}


@pytest.mark.parametrize("peer", PEERS)
def test_files_of_every_peer_keep_their_tensors_through_every_form(peer: str, tmp_path: Path) -> None:
    names, make = PEERS[peer]
    source = tmp_path / "source.safetensors"
    save_file(make(), source, {"ss_steps": "7", "modelspec.title": "x"})
    first = convert(source, "kohya", tmp_path / "first.safetensors")
    assert first["from"] == names and not first["unknown_keys"]
    convert(source, "diffusers", tmp_path / "d.safetensors")
    convert(tmp_path / "d.safetensors", "peft", tmp_path / "p")
    convert(tmp_path / "p", "kohya", tmp_path / "last.safetensors")
    assert (tmp_path / "first.safetensors").read_bytes() == (tmp_path / "last.safetensors").read_bytes()
    given = sorted(tensor.flatten().tolist() for tensor in make().values() if tensor.ndim)
    kept = sorted(
        tensor.flatten().tolist() for tensor in load_file(tmp_path / "last.safetensors").values() if tensor.ndim
    )
    assert kept == given
    with safe_open(tmp_path / "last.safetensors", "pt") as file:
        assert {key: file.metadata()[key] for key in ("ss_steps", "modelspec.title")} == {
            "ss_steps": "7", "modelspec.title": "x",
        }  # fmt: skip


def test_names_of_sd1_and_sdxl_lead_to_their_own_blocks(tmp_path: Path) -> None:
    """ComfyUI's names are the same in both up to the fourth level, but output block 2.1 is not the same layer."""
    text = "text_model.encoder.layers.0.mlp.fc1"
    expected = {
        "ComfyUI": {"down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", text},
        "ComfyUI for SD 1": {"down_blocks.0.attentions.0.proj_in", "up_blocks.0.upsamplers.0.conv", text},
    }
    for number, (peer, paths) in enumerate(expected.items()):
        save_file(PEERS[peer][1](), tmp_path / f"{number}.safetensors")
        convert(tmp_path / f"{number}.safetensors", "diffusers", tmp_path / f"{number}d.safetensors")
        found = load_file(tmp_path / f"{number}d.safetensors")
        assert {name.partition(".")[2].removesuffix(".lora_A.weight") for name in found if "lora_A" in name} == paths


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({}, "alpha_added"),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, "rslora_folded"),
        ({"unet.lora_alpha": 8, "unet.init_lora_weights": "pissa"}, "changed_base"),
        ({"unet.lora_alpha": 8, "unet.lora_dropout": 0.1}, "dropout"),
    ],
)
def test_what_is_not_as_it_was_is_told(settings: dict[str, Any], code: str, tmp_path: Path) -> None:
    tensors = pair(f"unet.{ATTENTION}.to_q", "lora_A.weight", "lora_B.weight", rank=4)
    metadata = {"lora_adapter_metadata": json.dumps(settings)} if settings else None
    save_file(tensors, tmp_path / "d.safetensors", metadata)
    answer = convert(tmp_path / "d.safetensors", "kohya", tmp_path / "k.safetensors")
    assert [note["code"] for note in answer["notes"]] == [code]
    (layer,) = read_lora(tmp_path / "k.safetensors").layers.values()
    expected = {"alpha_added": 4.0, "rslora_folded": 8 * math.sqrt(4)}
    assert layer.alpha == expected.get(code, 8.0)
    with safe_open(tmp_path / "k.safetensors", "pt") as file:
        assert "lora_adapter_metadata" not in file.metadata()


def test_factors_of_three_and_unknown_tensors_are_told(tmp_path: Path) -> None:
    tensors = {
        f"{CONV}.lora_down.weight": numbers(3, 6, 1, 1),
        f"{CONV}.lora_mid.weight": numbers(3, 3, 3, 3),
        f"{CONV}.lora_up.weight": numbers(8, 3, 1, 1),
        f"{CONV}.alpha": torch.tensor(3.0),
        "emb_params": numbers(2),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    answer = convert(tmp_path / "a.safetensors", "diffusers", tmp_path / "d.safetensors")
    lost = {note["code"] for note in answer["notes"] if note["lost"]}
    assert lost == {"mid_composed", "unknown_keys"} and answer["unknown_keys"] == ["emb_params"]


def loha(rank: int, outputs: int, inputs: int, seed: int = 0) -> LohaLayer:
    sides = [numbers(outputs, rank, seed=seed), numbers(rank, inputs, seed=seed + 1)]
    return LohaLayer(*sides, numbers(outputs, rank, seed=seed + 2), numbers(rank, inputs, seed=seed + 3), 2.0)


OTHERS = {
    "loha": loha(2, 20, 30),
    "loha of high rank": loha(5, 20, 30),
    "loha with cores": LohaLayer(
        numbers(2, 10, seed=1), numbers(2, 6, seed=2), numbers(2, 10, seed=3), numbers(2, 6, seed=4), 4.0,
        numbers(2, 2, 3, 3, seed=5), numbers(2, 2, 3, 3, seed=6),
    ),
    "lokr": LokrLayer(7.0, lokr_w1=numbers(2, 3), lokr_w2=numbers(10, 8)),
    "lokr of factors": LokrLayer(1.0, lokr_w1=numbers(2, 3), lokr_w2_a=numbers(10, 2), lokr_w2_b=numbers(2, 8)),
    "lokr convolution": LokrLayer(7.0, lokr_w1=numbers(2, 3), lokr_w2=numbers(5, 2, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_nearest_lora_is_that_of_the_dense_decomposition(name: str, rank: int) -> None:
    layer = OTHERS[name]
    delta = layer.delta(torch.float64).flatten(1)
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    near = as_lora(layer, rank)
    assert near.layer.weight_shape == layer.weight_shape and near.layer.rank <= rank
    assert float((near.layer.delta(torch.float64).flatten(1) - best).norm() / delta.norm()) < 1e-6
    assert near.error == pytest.approx(float((delta - best).norm() / delta.norm()), abs=1e-9)
    assert near.norm == pytest.approx(float(delta.norm()))
    assert near.full_rank == int(torch.linalg.matrix_rank(delta))
    whole = as_lora(layer, near.full_rank)
    assert whole.error < 1e-7 and whole.layer.rank == near.full_rank


def test_loha_and_lokr_files_become_loras_of_a_rank(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = ["to_q", "to_k", "to_v"]
    layers = {QUERY.replace("to_q", key): layer for key, layer in zip(keys, OTHERS.values(), strict=False)}
    layers[CONV] = OTHERS["lokr convolution"]
    plain = linear(4, 2.0, seed=3)
    write_lora(tmp_path / "a.safetensors", LoraFile({**layers, TEXT: plain}, {"ss_steps": "3"}), precision="float")
    command = ["convert", "--lora", str(tmp_path / "a.safetensors"), "--out", str(tmp_path / "b.safetensors")]
    assert main([*command, "--to", "diffusers"]) == 2
    assert "Give a rank" in capfd.readouterr().err
    assert main([*command, "--to", "kohya", "--rank", "3", "--conv-rank", "2", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    made = read_lora(tmp_path / "b.safetensors")
    assert made.kinds == ["LoRA"] and made.layers[CONV].rank == 2 and made.layers[next(iter(layers))].rank == 3
    assert isinstance(made.layers[TEXT], LoraLayer) and torch.equal(made.layers[TEXT].down, plain.down)
    lost = whole = 0.0
    for key, layer in layers.items():
        delta = layer.delta(torch.float64)
        off = float((made.layers[key].delta(torch.float64).reshape(delta.shape) - delta).norm())
        row = next(row for row in answer["error"]["layers"] if row["layer"] == key)
        assert row["error"] == pytest.approx(off / float(delta.norm()), abs=1e-6)
        lost, whole = lost + off**2, whole + float(delta.norm()) ** 2
    assert answer["error"]["total"] == pytest.approx(math.sqrt(lost / whole), abs=1e-6)
    assert made.metadata["ss_network_module"] == "networks.lora" and made.metadata["ss_steps"] == "3"
    assert main([*command, "--to", "diffusers", "--rank", "30", "--overwrite"]) == 0
    assert "Note: 4 layers are the nearest LoRA" in capfd.readouterr().out


def test_without_a_rank_loha_and_dora_stay_what_they_are_in_kohyas_form(tmp_path: Path) -> None:
    magnitude = numbers(1, 12).abs()
    dora = LoraLayer(linear(3, 1, seed=1).down, linear(3, 1, seed=1).up, 1.5, magnitude)
    write_lora(tmp_path / "a.safetensors", LoraFile({QUERY: loha(2, 10, 12), TEXT: dora}, {}), precision="bf16")
    answer = convert(tmp_path / "a.safetensors", "kohya", tmp_path / "b.safetensors")
    assert load_file(tmp_path / "b.safetensors").keys() == load_file(tmp_path / "a.safetensors").keys()
    assert all(
        torch.equal(tensor, load_file(tmp_path / "a.safetensors")[name])
        for name, tensor in load_file(tmp_path / "b.safetensors").items()
    )
    assert {note["code"] for note in answer["notes"]} == {"dora_in_kohya", "lycoris_in_kohya"}
    with pytest.raises(UserError) as caught:
        convert(tmp_path / "a.safetensors", "peft", tmp_path / "p")
    assert [problem.code for problem in caught.value.problems] == ["convert.kind", "convert.dora"]
    assert not (tmp_path / "p").exists()
    write_lora(tmp_path / "c.safetensors", LoraFile({QUERY: linear(2, 2, seed=1), TEXT: dora}, {}), precision="bf16")
    with pytest.raises(UserError, match="one for each input"):
        convert(tmp_path / "c.safetensors", "diffusers", tmp_path / "d.safetensors")
    by_output = LoraLayer(dora.down, dora.up, 1.5, numbers(10, 1).abs())
    other = QUERY.replace("to_q", "to_k")
    mixed = LoraFile({QUERY: linear(2, 2, seed=1), other: by_output}, {})
    write_lora(tmp_path / "e.safetensors", mixed, precision="bf16")
    with pytest.raises(UserError, match="in unet only some have it"):
        convert(tmp_path / "e.safetensors", "diffusers", tmp_path / "d.safetensors")


def test_wrong_input_is_told_at_once_and_nothing_is_replaced(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", lora(), precision="fp16")
    with pytest.raises(UserError) as caught:
        convert(tmp_path / "a.safetensors", "strange", tmp_path / "a", rank=0)
    assert [problem.field for problem in caught.value.problems] == ["out", "to", "rank"]
    before = (tmp_path / "a.safetensors").read_bytes()
    for form, out in {"kohya": "a.safetensors", "peft": "a.safetensors", "diffusers": "x"}.items():
        with pytest.raises(UserError):
            convert(tmp_path / "a.safetensors", form, tmp_path / out)
    assert (tmp_path / "a.safetensors").read_bytes() == before
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "1.png").write_bytes(b"")
    command = ["convert", "--lora", str(tmp_path / "a.safetensors"), "--to", "peft", "--overwrite", "--out"]
    assert main([*command, str(pictures)]) == 2 and (pictures / "1.png").exists()
    assert main([*command, str(tmp_path / "p")]) == 0
    (tmp_path / "p" / "unet" / "adapter_config.json").write_text("{}")
    assert main([*command, str(tmp_path / "p")]) == 0
    assert json.loads((tmp_path / "p" / "unet" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors", "pictures", "p"}
    strange = LoraFile({"lora_unet_strange_layer": linear(2, 2, seed=1)}, {})
    write_lora(tmp_path / "b.safetensors", strange, precision="fp16")
    with pytest.raises(UserError, match="1 layers have none here, such as lora_unet_strange_layer"):
        convert(tmp_path / "b.safetensors", "diffusers", tmp_path / "d.safetensors")


def test_precision_and_overflow(tmp_path: Path) -> None:
    layer = linear(2, 2.0, seed=0)
    big = LoraFile({QUERY: LoraLayer(layer.down * 1e6, layer.up, 2.0)}, {})
    write_lora(tmp_path / "a.safetensors", big, precision="float")
    with pytest.raises(UserError, match="too large for fp16"):
        convert(tmp_path / "a.safetensors", "peft", tmp_path / "p", precision="fp16")
    assert not (tmp_path / "p").exists() and len(list(tmp_path.iterdir())) == 1
    convert(tmp_path / "a.safetensors", "diffusers", tmp_path / "d.safetensors", precision="bf16")
    found = load_file(tmp_path / "d.safetensors").values()
    assert {tensor.dtype for tensor in found} == {torch.bfloat16}
