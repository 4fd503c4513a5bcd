"""``trainer merge`` from LoRA files to a LoRA file: strengths by block, plans, what is refused, what the file says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_samples import CONV, QUERY, TEXT, linear, lora
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainer.__main__ import main
from trainer.demo import MODEL_DIR
from trainer.lora.file import LoraFile, LoraLayer, read_lora, write_lora
from trainer.lora.keys import kohya_key
from trainer.lora.merge import MERGE_KEY

BLOCK = QUERY.replace("down_blocks_0", "up_blocks_2")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two LoRAs of different ranks and alphas; the second has a block of its own."""
    metadata = {"ss_base_model_version": "sd_v1", "modelspec.trigger_phrase": "ohwx", "ss_dataset_dirs": "secret"}
    second = lora(8, 4.0, seed=10)
    layers = {**second.layers, BLOCK: linear(8, 4.0, seed=13)}
    write_lora(tmp_path / "one.safetensors", lora(4, 2.0, **metadata), precision="fp16")
    write_lora(tmp_path / "two.safetensors", LoraFile(layers, metadata), precision="float")
    return [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]


def _merge(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = main(["merge", *map(str, arguments), "--json"])
    return code, json.loads(capfd.readouterr().out)


def _listing(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_strengths_of_parts_and_blocks_reach_their_layers(
    files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    spec = [f"{files[0]}=0.5,text_encoder:0,IN01:-3", f"{files[1]}=2,unet.up_blocks.2:0,text_encoder:1.5"]
    code, answer = _merge(capfd, "--lora", *spec, "--out", out)
    assert code == 0
    one, two, merged = (read_lora(path).layers for path in (*files, out))
    wanted = {QUERY: (-3, 2), CONV: (-3, 2), TEXT: (0, 1.5)}
    assert set(merged) == set(wanted), "a block without strength has no layers"
    for module, (first, second) in wanted.items():
        expected = first * one[module].delta(torch.float64) + second * two[module].delta(torch.float64)
        found = merged[module].delta(torch.float64)
        assert float((found - expected).norm() / expected.norm()) < 1e-6
    assert [row["layers_used"] for row in answer["loras"]] == [2, 3]
    assert answer["loras"][0]["ratio"] == "0.5,text_encoder:0,IN01:-3"


def test_the_file_says_what_it_is_made_of(files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    arguments = ["--lora", f"{files[0]}=0.5", f"{files[1]}=-1", "--mode", "svd", "--rank", "3", "--conv-rank", "2"]
    assert _merge(capfd, *arguments, "--out", out)[0] == 0
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    record = json.loads(metadata[MERGE_KEY])
    assert record["files"] == ["one.safetensors", "two.safetensors"]
    assert record["sha256"] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert (record["mode"], record["rank"], record["conv_rank"]) == ("svd", 3, 2)
    assert record["ratios"] == [0.5, -1.0]
    assert metadata["modelspec.merged_from"] == "one.safetensors, two.safetensors"
    assert metadata["modelspec.trigger_phrase"] == "ohwx"
    minimum = {
        "ss_v2": "False",
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "3",
        "ss_network_alpha": "3",
        "ss_network_args": '{"conv_dim": "2", "conv_alpha": "2"}',
    }
    assert {name: metadata[name] for name in minimum} == minimum
    data = out.read_bytes()
    tensors = data[8 + int.from_bytes(data[:8], "little") :]
    assert metadata["sshs_model_hash"] == hashlib.sha256(tensors).hexdigest()
    assert str(tmp_path) not in json.dumps(metadata) and "secret" not in json.dumps(metadata)


def test_the_same_merge_gives_the_same_bytes(
    files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pairs = ["--lora", f"{files[0]}=0.5", f"{files[1]}=1"]
    for mode in (["exact"], ["svd", "--rank", "4"], ["dare", "--rank", "4", "--seed", "3"]):
        outs = [tmp_path / f"{number}.safetensors" for number in range(2)]
        for out in outs:
            assert _merge(capfd, *pairs, "--out", out, "--overwrite", "--mode", *mode)[0] == 0
        assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize(
    "mode",
    [["exact"], ["svd", "--rank", "3", "--conv-rank", "20"], ["ties", "--rank", "5"], ["dare", "--rank", "200"]],
    ids=lambda mode: mode[0],
)
def test_a_plan_tells_what_the_merge_gives_and_writes_nothing(
    mode: list[str], files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    arguments = ["--lora", f"{files[0]}=0.5", f"{files[1]}=-1", "--mode", *mode, "--out", out]
    before = _listing(tmp_path)
    code, plan = _merge(capfd, *arguments, "--dry-run")
    assert code == 0 and plan["dry_run"]
    assert _listing(tmp_path) == before
    code, answer = _merge(capfd, *arguments)
    assert code == 0 and "dry_run" not in answer
    for name in ("mode", "layers", "ranks", "precision", "loras", "unknown_keys", "out"):
        assert plan[name] == answer[name], name
    assert plan["shared_layers"] == 3
    numbers = sum(tensor.numel() for name, tensor in load_file(out).items() if not name.endswith("alpha"))
    assert plan["size_bytes"] == 4 * numbers
    assert main(["merge", *map(str, arguments), "--dry-run", "--overwrite"]) == 0
    told = capfd.readouterr().out
    assert told.startswith(f"Would be written: {out}") and "two.safetensors" in told


def test_everything_wrong_is_told_at_once_and_nothing_is_written(
    files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "taken.safetensors").write_bytes(b"mine")
    before = _listing(tmp_path)
    loras = [
        f"{files[0]}=1,unet.up_blocks.2:1,vae:x",
        f"{tmp_path}/none.safetensors=1",
        f"{tmp_path}/broken.safetensors=1",
    ]
    code, answer = _merge(capfd, "--lora", *loras, "--out", tmp_path / "x.safetensors")
    assert (code, [problem["code"] for problem in answer["error"]]) == (2, ["lora.strength"])
    loras[0] = f"{files[0]}=1,unet.up_blocks.2:1"
    code, answer = _merge(
        capfd, "--lora", *loras, "--out", tmp_path / "taken.safetensors", "--mode", "ties", "--density", "2"
    )
    codes = ["out.exists", "merge.rank", "merge.density", "lora.block", "lora.missing", "lora.broken"]
    assert (code, [problem["code"] for problem in answer["error"]]) == (2, codes)
    hint = answer["error"][3]["hint"]
    assert hint == "It has text_encoder, text_encoder.layers.0, unet, unet.down_blocks.0."
    for out in ("x.ckpt", "", "one.safetensors"):
        assert _merge(capfd, "--lora", f"{files[0]}=1", "--overwrite", "--out", tmp_path / out)[0] == 2
    assert _merge(capfd, "--lora", f"{files[0]}=1", "--device", "cuda", "--out", tmp_path / "x.safetensors")[0] in (
        0,
        2,
    )
    (tmp_path / "x.safetensors").unlink(missing_ok=True)
    assert _listing(tmp_path) == before


def test_overwriting_is_asked_for(files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "taken.safetensors"
    out.write_bytes(b"mine")
    arguments = ["--lora", f"{files[0]}=1", "--out", out]
    assert _merge(capfd, *arguments)[0] == 2
    assert out.read_bytes() == b"mine"
    assert _merge(capfd, *arguments, "--overwrite")[0] == 0
    assert set(read_lora(out).layers) == set(read_lora(files[0]).layers)


def test_loras_of_different_families_are_refused_though_no_layer_clashes(
    files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Their layers have different names: the sum would be half a LoRA for each of two models."""
    sdxl = {"lora_unet_input_blocks_4_1_proj_in": linear(4, 2.0, seed=3)}
    write_lora(tmp_path / "xl.safetensors", LoraFile(sdxl, {}), precision="float")
    pairs = [f"{files[0]}=1", f"{tmp_path}/xl.safetensors=1"]
    code, answer = _merge(capfd, "--lora", *pairs, "--out", tmp_path / "x.safetensors")
    assert (code, answer["error"][0]["code"]) == (2, "merge.families")
    assert "one.safetensors is for sd1 and xl.safetensors is for sdxl" in answer["error"][0]["message"]
    assert not (tmp_path / "x.safetensors").exists()


def test_unknown_tensors_are_listed(files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / "odd.safetensors"
    save_file({**load_file(files[0]), "strange.thing": torch.ones(2)}, odd)
    code, answer = _merge(capfd, "--lora", f"{odd}=1", "--out", tmp_path / "x.safetensors")
    assert code == 0 and answer["unknown_keys"] == {str(odd): ["strange.thing"]}


def test_a_dora_is_merged_with_its_base(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Against the change computed by hand from the demo model's own weight."""
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    key = kohya_key("unet", path)
    weight = load_file(MODEL_DIR / "unet" / "diffusion_pytorch_model.safetensors")[f"{path}.weight"].double()
    outputs, inputs = weight.shape
    plain = linear(3, 2.0, seed=1, inputs=inputs, outputs=outputs)
    magnitude = weight.norm(dim=0, keepdim=True).float() * 1.1
    dora = LoraFile({key: LoraLayer(plain.down, plain.up, 2.0, magnitude)}, {})
    write_lora(tmp_path / "dora.safetensors", dora, precision="float")
    arguments = ["--lora", f"{tmp_path}/dora.safetensors=0.8", "--out", tmp_path / "out.safetensors"]
    code, answer = _merge(capfd, *arguments)
    assert (code, answer["error"][0]["code"]) == (2, "merge.dora_base")
    assert _merge(capfd, *arguments, "--dora-base", "nowhere.safetensors")[0] == 2
    wide = linear(3, 2.0, seed=1, inputs=inputs + 4, outputs=outputs)
    magnitudes = [torch.ones(1, inputs + 4), torch.ones(1, inputs)]
    strangers = {
        key: LoraLayer(wide.down, wide.up, 2.0, magnitudes[0]),
        f"{key}_none": LoraLayer(plain.down, plain.up, 2.0, magnitudes[1]),
    }
    write_lora(tmp_path / "other.safetensors", LoraFile(strangers, {}), precision="float")
    code, answer = _merge(
        capfd, *arguments[:2], f"{tmp_path}/other.safetensors=1", *arguments[2:], "--dora-base", "demo", "--dry-run"
    )
    assert (code, answer["error"][0]["code"]) == (2, "merge.no_fit")
    assert "other.safetensors was not made for" in answer["error"][0]["message"]
    assert "2 of 2 layers do not fit" in answer["error"][0]["message"]
    assert _merge(capfd, *arguments, "--dora-base", "demo")[0] == 0
    changed = weight + 2 / 3 * plain.up.double() @ plain.down.double()
    expected = 0.8 * (magnitude.double() * changed / changed.norm(dim=0, keepdim=True) - weight)
    found = read_lora(tmp_path / "out.safetensors").layers[key].delta(torch.float64)
    assert float((found - expected).norm() / expected.norm()) < 1e-6
