"""Looking into files: faults are told layer by layer, energies and hashes are true, models are called by name."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lora_samples import CONV, QUERY, TEXT, linear, lora
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_convert import convert
from test_convert_peers import OTHERS

from tests.unit.single_file_samples import sample, write_file
from trainer.__main__ import main
from trainer.errors import UserError
from trainer.inspection import inspect_path
from trainer.lora.file import LoraFile, read_lora, write_lora
from trainer.lora.hashes import file_hashes
from trainer.lora.inspect import inspect_lora
from trainer.lora.readable import readable_rows
from trainer.lora.spectrum import spectrum

DEMO = Path(__file__).resolve().parents[2] / "trainer" / "demo" / "model"


def codes(answer: dict[str, Any]) -> set[str]:
    return {warning["code"] for warning in answer["warnings"]}


@pytest.mark.parametrize("name", ["lora", "convolution", *OTHERS])
def test_singular_values_are_those_of_the_dense_change(name: str) -> None:
    sample_layers = lora(4, -2.0).layers
    layer = {"lora": sample_layers[QUERY], "convolution": sample_layers[CONV], **OTHERS}[name]
    dense = layer.delta(torch.float64).flatten(1).numpy()
    values = np.linalg.svd(dense, compute_uv=False)
    size = spectrum(layer)
    assert size.norm == pytest.approx(float(np.linalg.norm(dense)))
    if name == "loha with cores":
        assert size.squares is None and size.rank_for(0.9) is None
        return
    assert size.squares is not None
    count = min(len(values), len(size.squares))
    np.testing.assert_allclose(size.squares[:count].sqrt(), values[:count], rtol=1e-6, atol=1e-6 * values[0])
    for share in (0.5, 0.9, 0.999):
        kept = np.cumsum(values**2) / np.sum(values**2)
        assert size.rank_for(share) == int(np.searchsorted(kept, share)) + 1


def test_energy_of_a_file_is_that_of_its_layers_together(tmp_path: Path) -> None:
    sample_lora = LoraFile({**lora(6, 3.0).layers, TEXT: linear(3, 9.0, seed=5)}, {})
    write_lora(tmp_path / "a.safetensors", sample_lora, precision="float")
    answer = inspect_lora(tmp_path / "a.safetensors", layers=True)
    squares = [
        np.linalg.svd(layer.delta(torch.float64).flatten(1).numpy(), compute_uv=False) ** 2
        for layer in sample_lora.layers.values()
    ]
    whole = sum(values.sum() for values in squares)
    assert [row["rank"] for row in answer["energy"]["kept"]] == [1, 2, 4, 6]
    for row in answer["energy"]["kept"]:
        expected = sum(values[: row["rank"]].sum() for values in squares) / whole
        assert row["energy"] == pytest.approx(expected)
    assert answer["norm"] == pytest.approx(float(np.sqrt(whole)))
    assert sum(row["share"] for row in answer["blocks"]) == pytest.approx(1)
    assert [row["layer"] for row in answer["layers"]] == sorted(sample_lora.layers)
    by_path = {row["path"]: row for row in answer["layers"]}
    assert by_path["unet.down_blocks.0.resnets.0.conv1"]["shape"] == [8, 6, 3, 3]


def test_broken_layers_do_not_hide_the_others(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", lora(4, 2.0), precision="float")
    tensors = load_file(tmp_path / "a.safetensors")
    tensors[f"{QUERY}.lora_up.weight"][0, 0] = float("nan")
    tensors[f"{TEXT}.lora_up.weight"].zero_()
    other = QUERY.replace("to_q", "to_k")
    tensors |= {f"{other}.lora_down.weight": torch.ones(2, 4), f"{other}.lora_up.weight": torch.ones(4, 3)}
    tensors[f"{QUERY.replace('to_q', 'to_v')}.oft_blocks"] = torch.ones(2, 2, 2)
    tensors["strange"] = torch.ones(1)
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(UserError):
        read_lora(tmp_path / "b.safetensors")
    answer = inspect_path(tmp_path / "b.safetensors")
    assert answer["broken_layers"] == {
        QUERY: "holds NaN or infinity", other: "has shapes (2, 4) and (4, 3), which do not fit",
    }  # fmt: skip
    assert answer["zero_layers"] == [TEXT] and answer["other_kinds"] == {"OFT": 1}
    assert answer["unknown_keys"] == ["strange"] and answer["modules"] == 4
    assert codes(answer) == {"layers.broken", "layers.zero", "kind.other", "keys.unknown"}
    assert [row["layers"] for row in answer["blocks"]] == [1, 1]
    doubled = {**load_file(tmp_path / "a.safetensors")}
    dotted = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    doubled |= {f"{dotted}.lora_A.weight": torch.ones(2, 12), f"{dotted}.lora_B.weight": torch.ones(10, 2)}
    save_file(doubled, tmp_path / "c.safetensors")
    assert "layers.doubled" in codes(inspect_path(tmp_path / "c.safetensors"))
    with pytest.raises(UserError, match="twice"):
        read_lora(tmp_path / "c.safetensors")


def test_hashes_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    big = LoraFile({QUERY: linear(64, 64.0, seed=1, inputs=4000, outputs=4000)}, {"ss_a": "1", "modelspec.title": "x"})
    write_lora(path, big, precision="float")
    answer = inspect_path(path)
    assert answer["hashes"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert answer["hashes"]["autov2"] == answer["hashes"]["sha256"][:10]
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert answer["hashes"]["autov3"] == metadata["sshs_model_hash"][:12]
    assert [answer["hashes"][name]["right"] for name in ("sshs_model_hash", "sshs_legacy_hash")] == [True, True]
    assert codes(answer) == set()
    tensors = load_file(path)
    tensors[f"{QUERY}.lora_up.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "b.safetensors", metadata)
    assert "hash.sshs_model_hash" in codes(inspect_path(tmp_path / "b.safetensors"))
    assert file_hashes(path, {})["sshs_model_hash"]["right"] is None


def test_adapters_checkpoints_and_a_page_of_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tags = json.dumps({"5_fox": {"ohwx": 3}})
    extra = {"ss_tag_frequency": tags, "modelspec.title": "x\x1b[31m\u202ey", "ss_training_started_at": "0"}
    step = tmp_path / "step-000010"
    step.mkdir()
    write_lora(step / "lora.safetensors", lora(4, 2.0, **extra), precision="fp16")
    convert(step / "lora.safetensors", "peft", tmp_path / "p")
    answer = inspect_path(tmp_path / "p")
    assert (answer["naming"], answer["modules"], answer["hashes"]) == ("peft", 3, None)
    assert answer["ranks"] == {"4": 3} and answer["alphas"] == {"2": 3} and answer["precision"] == "fp16"
    (step / "manifest.json").write_text('{"step": 10, "validation_loss": 0.5, "files": {}}')
    assert inspect_path(step)["checkpoint"] == {"step": 10, "validation_loss": 0.5, "valid": False}
    assert main(["inspect", str(step), "--layers"]) == 0
    shown = capfd.readouterr().out
    assert "checkpoint of step 10, damaged" in shown and "1970-01-01" in shown and QUERY in shown
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "ohwx" in shown and "kept of the change at rank 1:" in shown
    with pytest.raises(UserError, match="no model and no LoRA"):
        inspect_path(tmp_path)


def test_layers_of_other_families_are_named(tmp_path: Path) -> None:
    tensors = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(2, 4)}
    tensors["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"] = torch.ones(6, 2)
    save_file(tensors, tmp_path / "a.safetensors")
    assert inspect_path(tmp_path / "a.safetensors")["family"] == "flux"
    other = {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 4)}
    save_file(other, tmp_path / "b.safetensors")
    answer = inspect_path(tmp_path / "b.safetensors")
    assert (answer["family"], answer["modules"], len(answer["unknown_keys"])) == ("flux", 0, 1)
    assert main(["inspect", str(tmp_path / "b.safetensors")]) == 0


@pytest.mark.parametrize(("kind", "predicts"), [("sd1", "epsilon"), ("sd2", "v_prediction"), ("sdxl", "epsilon")])
def test_base_models_are_told_from_their_headers(kind: str, predicts: str, tmp_path: Path) -> None:
    _, weights = sample(kind)
    path = write_file(tmp_path / "m.safetensors", {name: tensor.half() for name, tensor in weights.items()})
    answer = inspect_path(path)
    assert (answer["what"], answer["family"], answer["precision"]) == ("model", kind, "fp16")
    assert answer["prediction"]["type"] == predicts and answer["vae"] == "included"
    vae = sum(tensor.numel() for name, tensor in weights.items() if name.startswith("first_stage_model."))
    assert answer["parts"]["vae"] == {"numbers": vae, "precision": "fp16"}
    assert ("model.prediction_type" in codes(answer)) == (kind == "sd2")
    assert answer["ema"] == any(name.startswith("model_ema.") for name in weights)


def test_v_prediction_ema_ckpt_and_what_is_no_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, weights = sample("sdxl")
    marked = {**weights, "v_pred": torch.ones(1), "ztsnr": torch.ones(1), "model_ema.x": torch.ones(1)}
    answer = inspect_path(write_file(tmp_path / "v.safetensors", marked))
    assert answer["prediction"] == {"type": "v_prediction", "said": True, "zero_terminal_snr": True}
    assert codes(answer) == {"model.ema"}
    torch.save({"state_dict": sample("sd1")[1]}, tmp_path / "m.ckpt")
    assert inspect_path(tmp_path / "m.ckpt")["family"] == "sd1"
    save_file({"string_to_param": torch.ones(1), "emb_params": torch.ones(2)}, tmp_path / "e.safetensors")
    assert inspect_path(tmp_path / "e.safetensors")["said"] == "is an embedding (textual inversion)"
    for path in (tmp_path / "e.safetensors", tmp_path / "v.safetensors", DEMO):
        assert main(["inspect", str(path)]) == 0
    shown = capfd.readouterr().out
    assert "It is an embedding" in shown and "v_prediction, zero terminal SNR" in shown
    demo = inspect_path(DEMO)
    assert (demo["what"], demo["family"]) == ("model", "sd1") and demo["prediction"]["type"] == "v_prediction"
    assert demo["parts"]["unet"]["numbers"] > 1e5
    (tmp_path / "m.ckpt").write_bytes(b"nothing")
    assert main(["inspect", str(tmp_path / "m.ckpt")]) == 2
    shutil.copytree(DEMO, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    assert inspect_path(tmp_path / "copy")["vae"] == "missing"


def test_metadata_for_people() -> None:
    metadata = {
        "ss_output_name": "fox", "ss_learning_rate": "0.0001", "ss_vae_name": "None",
        "ss_network_args": '{"conv_dim": "4"}',
        "ss_training_started_at": "1700000000.0", "modelspec.thumbnail": "data:image/jpeg;base64," + "A" * 40_000,
        "ss_dataset_dirs": '{"5_fox": {"n_repeats": 5, "img_count": 12}}', "unknown": "x",
        "ss_bucket_info": '{"buckets": {"0": {"resolution": [512, 640], "count": 3}}}',
    }  # fmt: skip
    rows = {(row["topic"], row["label"]): row["value"] for row in readable_rows(metadata)}
    assert rows == {
        ("About", "Title"): "fox",
        ("About", "Thumbnail"): "a picture of about 30 kB",
        ("Network", "Settings"): "conv_dim 4",
        ("Training", "Learning rate"): "0.0001",
        ("Training", "Began"): "2023-11-14 22:13 UTC",
        ("Pictures", "Folders"): "5_fox (12 pictures x 5)",
        ("Pictures", "Sizes"): "512x640 (3)",
    }
    strange = dict.fromkeys(("ss_dataset_dirs", "ss_bucket_info", "ss_network_args", "ss_training_started_at"), "[[")
    assert all(isinstance(row["value"], str) for row in readable_rows(strange))
