"""Merging DoRA, LoHa, LoKr and convolutions in three parts into LoRAs, against dense float64 sums."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_samples import CONV, QUERY, TEXT, conv, linear
from safetensors.torch import save_file
from torch import Tensor

from trainer.errors import UserError
from trainer.lora.file import LoraFile, read_lora
from trainer.lora.layers import Layer, LohaLayer, LokrLayer, LoraLayer
from trainer.lora.merge import MergeSettings, merge_loras

NARROW = "lora_unet_down_blocks_0_resnets_0_conv_shortcut"
PROJECTION = "lora_unet_down_blocks_0_attentions_0_proj_in"


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) * 100 + seed))


def loha(rank: int = 2, outputs: int = 10, inputs: int = 12) -> LohaLayer:
    left, right = [numbers(outputs, rank, seed=s) for s in (1, 2)], [numbers(rank, inputs, seed=s) for s in (3, 4)]
    return LohaLayer(left[0], right[0], left[1], right[1], 1.5)


def loha_core() -> LohaLayer:
    """Of a convolution (8, 6, 3, 3), in Tucker form."""
    left, right = [numbers(2, 8, seed=s) for s in (1, 2)], [numbers(2, 6, seed=s) for s in (3, 4)]
    cores = [numbers(2, 2, 3, 3, seed=s) for s in (5, 6)]
    return LohaLayer(left[0], right[0], left[1], right[1], 4.0, cores[0], cores[1])


LINEAR: dict[str, Layer] = {
    "loha": loha(),
    "loha of a rank whose square is above the sides": loha(rank=5),
    "lokr whole": LokrLayer(7.0, lokr_w1=numbers(2, 3), lokr_w2=numbers(5, 4)),
    "lokr of factors": LokrLayer(1.0, lokr_w1=numbers(2, 3), lokr_w2_a=numbers(5, 1), lokr_w2_b=numbers(1, 4)),
}
CONVS: dict[str, Layer] = {
    "loha flattened": loha(outputs=8, inputs=54),
    "loha with cores": loha_core(),
    "lokr whole": LokrLayer(7.0, lokr_w1=numbers(2, 3), lokr_w2=numbers(4, 2, 3, 3)),
    "lokr of factors": LokrLayer(1.0, lokr_w1=numbers(2, 3), lokr_w2_a=numbers(4, 2), lokr_w2_b=numbers(2, 18)),
    "lokr with a core": LokrLayer(
        3.0, lokr_w1=numbers(2, 3), lokr_w2_a=numbers(2, 4), lokr_w2_b=numbers(2, 2), lokr_t2=numbers(2, 2, 3, 3)
    ),
}


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double().flatten(1) - expected).norm() / expected.norm())


def _dense(layer: Layer) -> Tensor:
    """The change by its definition, in float64: that ``delta`` is right is for ``test_lora_kinds.py``."""
    return layer.delta(torch.float64).flatten(1)


@pytest.mark.parametrize(
    ("module", "layer", "own"),
    [(QUERY, layer, linear(3, 2.0, seed=9)) for layer in LINEAR.values()]
    + [(CONV, layer, conv(3, 2.0, seed=9)) for layer in CONVS.values()],
    ids=[*(f"linear {name}" for name in LINEAR), *(f"conv {name}" for name in CONVS)],
)
def test_sums_with_loras_are_exact_and_best_approximated(module: str, layer: Layer, own: LoraLayer) -> None:
    loras = [(LoraFile({module: layer}, {}), -0.7), (LoraFile({module: own}, {}), 1.3)]
    expected = -0.7 * _dense(layer) + 1.3 * _dense(own)
    exact = merge_loras(loras).layers[module]
    assert exact.is_plain and exact.weight_shape == own.weight_shape
    assert exact.rank <= min(expected.shape)
    assert _relative(exact.delta(torch.float64), expected) < 1e-6
    left, values, right = torch.linalg.svd(expected, full_matrices=False)
    best = left[:, :4] * values[:4] @ right[:4]
    reduced = merge_loras(loras, MergeSettings("svd", 4)).layers[module]
    assert reduced.rank == 4 and reduced.weight_shape == own.weight_shape
    assert float((reduced.delta(torch.float64).flatten(1) - best).norm() / expected.norm()) < 1e-5


def test_a_kernel_that_the_file_does_not_tell_is_known_by_the_layers_name() -> None:
    """LyCORIS flattens the kernel of a LoHa: tools need it back in the LoRA."""
    layers: dict[str, Layer] = {
        CONV: loha(outputs=8, inputs=54),
        NARROW: loha(),
        PROJECTION: loha(),
        QUERY: loha(),
        "lora_unet_input_blocks_3_0_op": loha(outputs=8, inputs=54),
    }
    sd1 = merge_loras([(LoraFile(layers, {"ss_base_model_version": "sd_v1"}), 1.0)]).layers
    assert {name: tuple(layer.down.shape[1:]) for name, layer in sd1.items()} == {
        CONV: (6, 3, 3),
        NARROW: (12, 1, 1),
        PROJECTION: (12, 1, 1),
        QUERY: (12,),
        "lora_unet_input_blocks_3_0_op": (6, 3, 3),
    }
    sdxl = merge_loras([(LoraFile(layers, {"ss_base_model_version": "sdxl_base_v1-0"}), 1.0)]).layers
    assert tuple(sdxl[PROJECTION].down.shape) == (4, 12)
    assert tuple(sdxl[PROJECTION].up.shape) == (10, 4)
    assert tuple(sdxl[CONV].up.shape[1:]) == (4, 1, 1)


def test_a_convolution_in_three_parts_is_merged_by_its_change(tmp_path: Path) -> None:
    down, mid, up = numbers(3, 6, 1, 1), numbers(3, 3, 3, 3), numbers(8, 3, 1, 1)
    parts = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(1.5)}
    save_file({f"{CONV}.{name}": value for name, value in parts.items()}, tmp_path / "cp.safetensors")
    expected = torch.einsum("or,rsxy,si->oixy", up[:, :, 0, 0].double(), mid.double(), down[:, :, 0, 0].double())
    own = conv(2, 1.0, seed=3)
    merged = merge_loras([(read_lora(tmp_path / "cp.safetensors"), 2.0), (LoraFile({CONV: own}, {}), -1.0)])
    wanted = (2.0 * 0.5 * expected).flatten(1) - _dense(own)
    assert _relative(merged.layers[CONV].delta(torch.float64), wanted) < 1e-6


@pytest.mark.parametrize("direction", ["inputs", "outputs"])
@pytest.mark.parametrize("kind", ["lora", "loha"])
def test_a_dora_is_merged_by_what_it_does_to_its_base(direction: str, kind: str) -> None:
    weight = numbers(10, 12, seed=7)
    magnitude = numbers(1, 12).abs() + 0.5 if direction == "inputs" else numbers(10, 1).abs() + 0.5
    plain, other = linear(3, 2.0, seed=1), linear(4, 4.0, seed=2)
    dora: Layer = LoraLayer(plain.down, plain.up, plain.alpha, magnitude)
    if kind == "loha":
        shape = loha()
        dora = LohaLayer(shape.hada_w1_a, shape.hada_w1_b, shape.hada_w2_a, shape.hada_w2_b, 1.5, magnitude=magnitude)
    direction_sum = weight.double() + _dense(dora)
    norm = direction_sum.pow(2).sum(dim=0 if direction == "inputs" else 1, keepdim=True).sqrt()
    change = magnitude.double() * direction_sum / norm - weight.double()
    expected = 0.6 * change - 0.5 * _dense(other)
    loras = [(LoraFile({QUERY: dora}, {}), 0.6), (LoraFile({QUERY: other, TEXT: other}, {}), -0.5)]
    asked = []

    def base(module: str) -> Tensor:
        asked.append(module)
        return weight

    merged = merge_loras(loras, base_weight=base).layers[QUERY]
    assert merged.is_plain
    assert _relative(merged.delta(torch.float64), expected) < 1e-6
    reduced = merge_loras(loras, MergeSettings("svd", 5), base_weight=base).layers[QUERY]
    left, values, right = torch.linalg.svd(expected, full_matrices=False)
    best = left[:, :5] * values[:5] @ right[:5]
    assert float((reduced.delta(torch.float64) - best).norm() / expected.norm()) < 1e-5
    assert set(asked) == {QUERY}, "only what a DoRA changes is read of the model"


def test_kinds_that_a_mode_cannot_merge_are_told_all_at_once() -> None:
    plain = linear(3, 2.0, seed=1)
    dora = LoraFile({QUERY: LoraLayer(plain.down, plain.up, 2.0, numbers(1, 12))}, {})
    with pytest.raises(UserError) as caught:
        merge_loras([(dora, 1.0), (LoraFile({QUERY: loha()}, {}), 1.0), (dora, 2.0)])
    assert [problem.code for problem in caught.value.problems] == ["merge.dora_base"] * 2
    assert "LoRA 3 is a DoRA" in caught.value.problems[1].message
    with pytest.raises(UserError) as caught:
        merge_loras([(dora, 1.0), (LoraFile({QUERY: loha()}, {}), 1.0)], MergeSettings("kohya"))
    assert [problem.code for problem in caught.value.problems] == ["merge.kind"] * 2


def test_layers_of_other_sizes_are_told() -> None:
    wide = LoraFile({QUERY: loha(inputs=16)}, {})
    for other in (linear(4, 2.0, seed=0), conv(4, 2.0, seed=0, inputs=12, outputs=10, kernel=1)):
        with pytest.raises(UserError) as caught:
            merge_loras([(LoraFile({QUERY: other}, {}), 1.0), (wide, 1.0)])
        assert caught.value.problems[0].code == "merge.shapes"
    kernels = [conv(2, 1.0, seed=0, kernel=3, inputs=4), conv(2, 1.0, seed=0, kernel=1, inputs=36)]
    with pytest.raises(UserError):
        merge_loras([(LoraFile({CONV: layer}, {}), 1.0) for layer in kernels])
