"""Resizing against numpy: dense decompositions, ranks worked out by hand, and sd-scripts' own counting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lora_samples import CONV, QUERY, TEXT, conv, linear, lora
from numpy.typing import NDArray
from torch import Tensor

from trainer.__main__ import main
from trainer.errors import UserError
from trainer.lora.file import LoraFile, LoraLayer, read_lora, write_lora
from trainer.lora.layers import LohaLayer, LokrLayer
from trainer.lora.resize import RESIZE_KEY, Choice, check_choice, dynamic_rank, kept_norm, resize_lora

PROJ = "lora_unet_down_blocks_0_attentions_0_proj_in"


def _dense(layer: LoraLayer) -> NDArray[np.float64]:
    """``up @ down`` without its strength."""
    return layer.up.double().flatten(1).numpy() @ layer.down.double().flatten(1).numpy()


def _best(matrix: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank] * values[:rank] @ right[:rank]


def _sample() -> LoraFile:
    """Rank 8 with alphas that are not the rank; a 3x3 and a 1x1 convolution among the layers."""
    layers = {**lora(8, 2.0).layers, PROJ: conv(8, -4.0, seed=9, kernel=1, inputs=12, outputs=10)}
    return LoraFile(layers, {"ss_base_model_version": "sd_v1", "ss_training_comment": "mine"})


@pytest.mark.parametrize(("rank", "conv_rank"), [(3, 3), (5, 2), (1, 6), (100, 100)])
def test_every_layer_is_the_best_approximation_of_its_strength(rank: int, conv_rank: int) -> None:
    given = _sample()
    resized, reports = resize_lora(given, Choice(rank, conv_rank))
    assert [report.module for report in reports] == list(given.layers)
    for module, layer in given.layers.items():
        found = resized.layers[module]
        wanted = min(8, conv_rank if module == CONV else rank)
        expected = layer.alpha / 8 * _best(_dense(layer), wanted)
        assert found.rank == wanted
        assert found.alpha == pytest.approx(layer.alpha / 8 * wanted)  # alpha / rank is what it was
        assert found.weight_shape == layer.weight_shape
        error = np.linalg.norm(found.delta(torch.float64).flatten(1).numpy() - expected)
        assert error < 1e-6 * np.linalg.norm(layer.alpha / 8 * _dense(layer))


def test_the_report_tells_what_is_kept() -> None:
    given = _sample()
    _, reports = resize_lora(given, Choice(3, 3))
    for report in reports:
        values = np.linalg.svd(_dense(given.layers[report.module]), compute_uv=False)[:8]
        assert (report.rank_before, report.rank, report.kind) == (8, 3, "LoRA")
        assert report.sum_kept == pytest.approx(values[:3].sum() / values.sum(), rel=1e-6)
        assert report.norm_kept == pytest.approx(np.sqrt((values[:3] ** 2).sum() / (values**2).sum()), rel=1e-6)
        assert report.ratio == pytest.approx(values[0] / values[2], rel=1e-6)
        scale = abs(given.layers[report.module].alpha) / 8
        assert report.norm == pytest.approx(scale * np.linalg.norm(values), rel=1e-6)
    kept = sum((report.norm * report.norm_kept) ** 2 for report in reports)
    assert kept_norm(reports) == pytest.approx(np.sqrt(kept / sum(report.norm**2 for report in reports)))


HAND = torch.tensor([8.0, 4.0, 4.0, 2.0, 1.0, 1.0], dtype=torch.float64)
"""Their sum is 20: shares 0.4, 0.6, 0.8, 0.9, 0.95, 1. Squares 64 16 16 4 1 1, sum 102."""


@pytest.mark.parametrize(
    ("method", "param", "defined", "kohya"),
    [
        ("sv_ratio", 2, 1, 2),  # above 4: only 8
        ("sv_ratio", 2.001, 3, 4),
        ("sv_ratio", 5, 4, 5),
        ("sv_ratio", 100, 6, 6),
        ("sv_ratio", 1, 1, 2),  # none is above 8, one stays
        ("sv_cumulative", 0.39, 1, 2),
        ("sv_cumulative", 0.41, 2, 3),
        ("sv_cumulative", 0.89, 4, 5),
        ("sv_cumulative", 0.96, 6, 6),
        ("sv_cumulative", 1.0, 6, 6),
        ("sv_fro", 0.79, 1, 2),  # 0.79^2 = 0.624; 64 / 102 = 0.627
        ("sv_fro", 0.8, 2, 3),  # 0.64
        ("sv_fro", 0.97, 3, 4),  # 0.9409; 96 / 102 = 0.9412
        ("sv_fro", 0.971, 4, 5),
        ("sv_fro", 1.0, 6, 6),
    ],
)
def test_dynamic_ranks_by_hand(method: str, param: float, defined: int, kohya: int) -> None:
    assert dynamic_rank(HAND, method, param) == defined  # type: ignore[arg-type]
    assert dynamic_rank(HAND, method, param, kohya_values=40) == kohya  # type: ignore[arg-type]


def _kohya_rank(dense: NDArray[np.float64], method: str, param: float, most: int) -> int:
    """Counting as in sd-scripts' resize_lora.py, over all values of the dense weight."""
    values = np.linalg.svd(dense, compute_uv=False)
    if method == "sv_ratio":
        index = int((values > values[0] / param).sum())
    elif method == "sv_cumulative":
        index = int(np.searchsorted(np.cumsum(values) / values.sum(), param)) + 1
    else:
        index = int(np.searchsorted(np.cumsum(values**2) / (values**2).sum(), param**2)) + 1
    return min(max(1, min(index, len(values) - 1)) + 1, most)


@pytest.mark.parametrize(("method", "param"), [("sv_ratio", 3.0), ("sv_cumulative", 0.7), ("sv_fro", 0.9)])
def test_dynamic_ranks_of_whole_files(method: str, param: float) -> None:
    given = _sample()
    defined, _ = resize_lora(given, Choice(6, 4, method, param))  # type: ignore[arg-type]
    kohya, _ = resize_lora(given, Choice(6, 4, method, param, like_kohya=True))  # type: ignore[arg-type]
    for module, layer in given.layers.items():
        most = 4 if layer.down.ndim == 4 else 6  # there the 1x1 convolution is one too
        wanted = _kohya_rank(_dense(layer), method, param, most)
        assert kohya.layers[module].rank == wanted
        most = 4 if module == CONV else 6
        assert defined.layers[module].rank == min(most, max(1, _kohya_rank(_dense(layer), method, param, 99) - 1))
        assert kohya.layers[module].alpha == pytest.approx(layer.scale * wanted)


def test_a_layer_of_zeros_keeps_rank_one() -> None:
    nothing = LoraFile({QUERY: LoraLayer(torch.ones(4, 12), torch.zeros(10, 4), 4.0)}, {})
    for choice in (Choice(3, 3), Choice(3, 3, "sv_fro", 0.9)):
        resized, reports = resize_lora(nothing, choice)
        assert resized.layers[QUERY].rank == 1
        assert not resized.layers[QUERY].delta().any()
        assert (reports[0].sum_kept, reports[0].norm_kept, reports[0].ratio) == (1.0, 1.0, 1.0)
        assert kept_norm(reports) == 1.0


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_loha_and_lokr_become_lora_with_the_kernel_of_their_layer() -> None:
    matrices = [_random(*shape, seed=seed) for seed, shape in enumerate([(8, 2), (2, 54), (8, 2), (2, 54)])]
    loha = LohaLayer(*matrices, alpha=1.0)
    lokr = LokrLayer(4.0, lokr_w1=_random(2, 3, seed=7), lokr_w2=_random(5, 4, seed=8))
    resized, reports = resize_lora(LoraFile({CONV: loha, QUERY: lokr}, {}), Choice(4, 4))
    assert resized.layers[CONV].down.shape == (4, 6, 3, 3)
    assert resized.layers[QUERY].weight_shape == (10, 12)
    assert resized.kinds == ["LoRA"]
    assert [report.kind for report in reports] == ["LoHa", "LoKr"]
    for module, layer in ((CONV, loha), (QUERY, lokr)):
        expected = _best(layer.delta(torch.float64).numpy(), 4)
        found = resized.layers[module].delta(torch.float64).flatten(1).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.linalg.norm(expected))


def test_a_dora_keeps_its_magnitude() -> None:
    layer, magnitude = linear(8, 2.0, seed=3), torch.rand(1, 12) + 1
    given = LoraFile({QUERY: LoraLayer(layer.down, layer.up, 2.0, magnitude)}, {})
    resized, reports = resize_lora(given, Choice(4, 4))
    found = resized.layers[QUERY]
    assert found.magnitude is not None
    assert torch.equal(found.magnitude, magnitude)
    assert reports[0].kind == "DoRA"
    weight = _random(10, 12, seed=4)
    direction = weight.double().numpy() + 0.25 * _best(_dense(layer), 4)
    expected = direction * magnitude.numpy() / np.linalg.norm(direction, axis=0, keepdims=True) - weight.numpy()
    np.testing.assert_allclose(found.change(weight, torch.float64).numpy(), expected, atol=1e-5)


def test_metadata_is_kept_and_says_what_was_done() -> None:
    given = _sample()
    given.metadata.update({"modelspec.trigger_phrase": "ohwx", "lora_adapter_metadata": '{"r": 8}'})
    fixed = resize_lora(given, Choice(4, 2))[0].metadata
    assert fixed["ss_base_model_version"] == "sd_v1"
    assert fixed["modelspec.trigger_phrase"] == "ohwx"
    assert "lora_adapter_metadata" not in fixed  # it would give diffusers the old rank
    assert fixed["ss_network_dim"] == "4"
    assert json.loads(fixed["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "0.5"}
    assert fixed["ss_training_comment"] == "dimension is resized from 8 to 4 (conv: 2); mine"
    record = json.loads(fixed[RESIZE_KEY])
    assert (record["rank"], record["conv_rank"], record["rank_before"]) == (4, 2, 8)
    assert 0 < record["norm_kept"] < 1
    dynamic = resize_lora(given, Choice(4, 4, "sv_fro", 0.8))[0].metadata
    assert dynamic["ss_training_comment"].startswith("Dynamic resize with sv_fro: 0.8 from 8; mine")
    assert json.loads(dynamic[RESIZE_KEY])["param"] == 0.8


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ((4, None, None, None), []),
        ((4, 2, "sv_ratio", 1.0), []),
        ((0, -1, None, 0.5), ["rank", "conv_rank", "param"]),
        ((4, None, "sv_fro", None), ["param"]),
        ((4, None, "sv_fro", 1.5), ["param"]),
        ((4, None, "sv_cumulative", 0.0), ["param"]),
        ((4, None, "sv_ratio", 0.5), ["param"]),
        ((4, None, "sv_ratio", float("nan")), ["param"]),
        ((4, None, "sv_ratio", float("inf")), ["param"]),
        ((4, None, "best", 1.5), ["dynamic", "param"]),
    ],
)
def test_wrong_numbers_are_told(arguments: tuple[int, int | None, str | None, float | None], fields: list[str]) -> None:
    assert [problem.field for problem in check_choice(*arguments)] == fields


def test_the_resize_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "given.safetensors", tmp_path / "out" / "small.safetensors"
    write_lora(source, _sample(), precision="fp16")
    command = ["resize", "--lora", str(source), "--rank", "4", "--out", str(out)]
    assert main([*command, "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["ranks"], answer["ranks_before"], answer["precision"]) == ({"4": 4}, {"8": 4}, "fp16")
    assert {layer["module"] for layer in answer["layers"]} == {QUERY, CONV, TEXT, PROJ}
    read = read_lora(out)
    assert {layer.rank for layer in read.layers.values()} == {4}
    for module, layer in read.layers.items():
        expected = _best(read_lora(source).layers[module].delta(torch.float64).flatten(1).numpy(), 4)
        error = np.linalg.norm(layer.delta(torch.float64).flatten(1).numpy() - expected)
        assert error < 2e-3 * np.linalg.norm(expected)
    assert main([*command, "--overwrite", "--dynamic", "sv_fro", "--param", "0.8", "--verbose"]) == 0
    printed = capfd.readouterr().out
    assert CONV in printed
    assert "of the change's norm" in printed


def test_all_that_is_wrong_is_told_at_once_and_nothing_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = ["resize", "--lora", str(tmp_path / "none.safetensors"), "--rank", "0", "--conv-rank", "0"]
    assert main([*wrong, "--param", "2", "--out", str(tmp_path / "a.ckpt"), "--json"]) == 2
    problems = json.loads(capfd.readouterr().out)["error"]
    assert [problem["field"] for problem in problems] == ["rank", "conv_rank", "param", "out", ""]
    source = tmp_path / "given.safetensors"
    write_lora(source, _sample(), precision="float")
    before = source.read_bytes()
    assert main(["resize", "--lora", str(source), "--rank", "4", "--out", str(source), "--overwrite"]) == 2
    assert "is what is read" in capfd.readouterr().err
    (tmp_path / "b.safetensors").write_text("other")
    assert main(["resize", "--lora", str(source), "--rank", "4", "--out", str(tmp_path / "b.safetensors")]) == 2
    assert "exists already" in capfd.readouterr().err
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.safetensors", "given.safetensors"]


def test_unknown_devices_are_refused(tmp_path: Path) -> None:
    from trainer.devices import choose_device

    assert choose_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(UserError):
            choose_device("cuda")
