"""Merging LoRAs with each other, against float64 sums, dense SVDs, sd-scripts' formula and diffusers' own effect."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from lora_samples import CONV, QUERY, TEXT, conv, linear, lora
from torch import Tensor

from trainer.errors import UserError
from trainer.lora.file import LoraFile, LoraLayer, read_lora, write_lora
from trainer.lora.merge import MERGE_KEY, MergeSettings, MergeSource, merge_loras, widest_precision
from trainer.lora.strengths import parse_strength

Weighted = list[tuple[LoraFile, float]]


def _three() -> Weighted:
    """Ranks 4, 8 and 32, different alphas, a negative ratio and one above 1, and a module that only one has."""
    third = lora(32, 16.0, seed=20)
    only = {"lora_unet_conv_in": conv(32, 8.0, seed=5, inputs=4, outputs=8)}
    return [
        (lora(4, 2.0, seed=0), 0.7),
        (lora(8, 8.0, seed=10), -1.3),
        (LoraFile({**third.layers, **only}, {}), 2.5),
    ]


def _sum(loras: Weighted, module: str) -> Tensor:
    deltas = []
    for one, ratio in loras:
        if module in one.layers:
            layer = one.layers[module]
            product = torch.einsum("or,ri->oi", layer.up.double().flatten(1), layer.down.double().flatten(1))
            deltas.append(ratio * layer.alpha / layer.down.shape[0] * product)
    return sum(deltas[1:], deltas[0])


def _error(found: LoraLayer, expected: Tensor) -> float:
    return float((found.delta(torch.float64).flatten(1) - expected).norm() / expected.norm())


def test_exact_equals_the_float64_sum() -> None:
    loras = _three()
    merged = merge_loras(loras)
    assert set(merged.layers) == {QUERY, CONV, TEXT, "lora_unet_conv_in"}
    assert merged.layers[QUERY].rank == 44
    assert merged.layers["lora_unet_conv_in"].rank == 32
    assert merged.layers[CONV].weight_shape == (8, 6, 3, 3)
    for module, layer in merged.layers.items():
        assert _error(layer, _sum(loras, module)) < 1e-6


def test_exact_keeps_a_single_lora_bit_for_bit() -> None:
    one = lora(4, 2.0)
    merged = merge_loras([(one, 1.0)])
    for module, layer in one.layers.items():
        assert torch.equal(merged.layers[module].down, layer.down)
        assert torch.equal(merged.layers[module].up, layer.up)
        assert merged.layers[module].alpha == layer.alpha


def test_exact_in_fp16_loses_no_more_than_fp16(tmp_path: Path) -> None:
    """Small strengths (alpha far below rank) must not push the factors below what fp16 can hold."""
    small = LoraFile({QUERY: LoraLayer(linear(16, 1, seed=1).down * 0.02, linear(16, 1, seed=1).up * 1e-3, 0.05)}, {})
    merged = merge_loras([(small, 0.3), (small, 0.1)])
    write_lora(tmp_path / "a.safetensors", merged, precision="fp16")
    assert _error(read_lora(tmp_path / "a.safetensors").layers[QUERY], _sum([(small, 0.4)], QUERY)) < 2e-3


@pytest.mark.parametrize("rank", [1, 4, 100])
def test_svd_equals_the_dense_svd_of_the_sum(rank: int) -> None:
    loras = _three()
    merged = merge_loras(loras, MergeSettings("svd", rank))
    for module, layer in merged.layers.items():
        dense = _sum(loras, module)
        left, values, right = torch.linalg.svd(dense, full_matrices=False)
        best = left[:, :rank] * values[:rank] @ right[:rank]
        assert layer.rank <= rank
        found = layer.delta(torch.float64).flatten(1)
        assert float((found - best).norm() / dense.norm()) < 1e-5
        assert layer.weight_shape[0] == dense.shape[0]
    assert merged.layers[CONV].down.shape[1:] == (6, 3, 3)


def test_svd_tells_how_much_is_kept() -> None:
    loras = _three()
    record = json.loads(merge_loras(loras, MergeSettings("svd", 2)).metadata[MERGE_KEY])
    values = torch.linalg.svdvals(_sum(loras, TEXT)).square()
    assert record["kept_energy"]["smallest"] <= float(values[:2].sum() / values.sum()) <= 1
    full = json.loads(merge_loras(loras, MergeSettings("svd", 100)).metadata[MERGE_KEY])
    assert full["kept_energy"] == pytest.approx({"smallest": 1.0, "mean": 1.0}, abs=1e-6)


def test_svd_of_parts_that_cancel_out_is_zero() -> None:
    one = lora(4, 2.0)
    merged = merge_loras([(one, 1.0), (one, -1.0)], MergeSettings("svd", 4))
    for module, layer in merged.layers.items():
        assert float(layer.delta().norm()) < 1e-5 * float(one.layers[module].delta().norm())


def test_kohya_reproduces_the_formula_of_sd_scripts() -> None:
    """As in sd-scripts' merge_lora_models: each file's tensors in turn, scale on both factors, sign on down only."""
    loras = [(lora(4, 2.0, seed=0), 0.5), (lora(4, 8.0, seed=10), -0.8), (lora(4, 2.0, seed=20), 0.0)]
    merged = merge_loras(loras, MergeSettings("kohya"))
    for module in (QUERY, CONV, TEXT):
        down, up = 0, 0
        for one, ratio in loras:
            scale = math.sqrt(one.layers[module].alpha / 2.0) * ratio
            down = one.layers[module].down * scale + down
            up = one.layers[module].up * abs(scale) + up
        assert torch.equal(merged.layers[module].down, down)
        assert torch.equal(merged.layers[module].up, up)
        assert merged.layers[module].alpha == 2.0


def test_kohya_halves_twice_where_exact_halves_once() -> None:
    one = lora(4, 2.0)
    full = one.layers[QUERY].delta()
    torch.testing.assert_close(merge_loras([(one, 0.5)], MergeSettings("kohya")).layers[QUERY].delta(), full * 0.25)
    torch.testing.assert_close(merge_loras([(one, 0.5)]).layers[QUERY].delta(), full * 0.5)


def test_linear_and_1x1_convolution_of_the_same_layer_are_merged() -> None:
    module = "lora_unet_down_blocks_0_attentions_0_proj_in"
    flat = linear(4, 4.0, seed=1)
    kernel = conv(4, 4.0, seed=2, kernel=1, inputs=12, outputs=10)
    for pair in ([flat, kernel], [kernel, flat]):
        loras = [(LoraFile({module: layer}, {}), 0.5) for layer in pair]
        for mode, rank in (("exact", None), ("svd", 8)):
            layer = merge_loras(loras, MergeSettings(mode, rank)).layers[module]  # type: ignore[arg-type]
            assert layer.weight_shape == (10, 12, 1, 1)
            assert _error(layer, _sum(loras, module)) < 1e-6


def test_metadata_tells_where_the_file_is_from() -> None:
    common = {"ss_base_model_version": "sd_v1", "modelspec.architecture": "stable-diffusion-v1/lora"}
    first = LoraFile(lora(4, 2.0).layers, {**common, "modelspec.trigger_phrase": "ohwx", "modelspec.title": "One"})
    second = LoraFile(lora(8, 2.0).layers, {**common, "modelspec.trigger_phrase": "zwx", "ss_dataset_dirs": "secret"})
    sources = [(first, "0.5", "one.safetensors"), (second, "-1,text_encoder:2", "two.safetensors")]
    merged = merge_loras([MergeSource(lora, parse_strength(text), name, "abc") for lora, text, name in sources])
    assert merged.metadata["ss_base_model_version"] == "sd_v1"
    assert merged.metadata["ss_network_dim"] == "12"
    assert merged.metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert merged.metadata["modelspec.trigger_phrase"] == "ohwx, zwx"
    assert merged.metadata["modelspec.merged_from"] == "one.safetensors, two.safetensors"
    assert "ss_dataset_dirs" not in merged.metadata
    assert "modelspec.title" not in merged.metadata
    record = json.loads(merged.metadata[MERGE_KEY])
    assert record == {
        "mode": "exact",
        "precision": "float",
        "files": ["one.safetensors", "two.safetensors"],
        "sha256": ["abc", "abc"],
        "ratios": [0.5, "-1,text_encoder:2"],
    }


def _refused(loras: Weighted, mode: str = "exact", rank: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        merge_loras(loras, MergeSettings(mode, rank))  # type: ignore[arg-type]
    return caught.value.problems[0].code


def test_what_cannot_be_merged_is_told() -> None:
    one = lora(4, 2.0)
    assert _refused([]) == "merge.nothing"
    assert _refused([(one, 0.0)]) == "merge.nothing"
    assert _refused([(one, math.nan)]) == "merge.ratio"
    assert _refused([(one, math.inf)]) == "merge.ratio"
    assert _refused([(one, 1.0)], "svd") == "merge.rank"
    assert _refused([(one, 1.0)], "svd", 0) == "merge.rank"
    assert _refused([(one, 1.0)], "exact", 4) == "merge.rank"
    assert _refused([(one, 1.0)], "average") == "merge.mode"
    assert _refused([(one, 1.0), (lora(8, 2.0), 1.0)], "kohya") == "merge.ranks"
    assert _refused([(one, 1.0), (lora(4, -2.0), 1.0)], "kohya") == "merge.alpha"
    wide = LoraFile({QUERY: linear(4, 2.0, seed=0, inputs=16)}, {})
    assert _refused([(one, 1.0), (wide, 1.0)]) == "merge.shapes"
    versions = [(LoraFile(one.layers, {"ss_base_model_version": version}), 1.0) for version in ("sd_v1", "sd_v2")]
    assert _refused(versions) == "merge.families"


def test_widest_precision() -> None:
    def as_type(dtype: torch.dtype) -> LoraFile:
        layer = linear(4, 2.0, seed=0)
        return LoraFile({QUERY: LoraLayer(layer.down.to(dtype), layer.up.to(dtype), 2.0)}, {})

    half, brain, single = as_type(torch.float16), as_type(torch.bfloat16), as_type(torch.float32)
    assert widest_precision([half, half]) == "fp16"
    assert widest_precision([brain]) == "bf16"
    assert widest_precision([half, brain]) == "float"
    assert widest_precision([half, single]) == "float"
