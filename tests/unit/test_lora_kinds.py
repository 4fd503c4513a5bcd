"""DoRA, LoHa and LoKr layers: their changes against float64 formulas written out, and their files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_samples import CONV, QUERY, conv, linear
from peft.tuners.lokr.layer import factorization
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.errors import UserError
from trainer.lora.file import LoraFile, network_metadata, read_lora, write_lora
from trainer.lora.inspect import inspect_lora
from trainer.lora.layers import Layer, LohaLayer, LokrLayer, LoraLayer, add_changes, kronecker
from trainer.lora.sizes import kronecker_sides


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) * 100 + seed))


def loha(inputs: int = 12, outputs: int = 10, rank: int = 3, alpha: float = 2.0) -> LohaLayer:
    left = [numbers(outputs, rank, seed=seed) for seed in (1, 2)]
    right = [numbers(rank, inputs, seed=seed) for seed in (3, 4)]
    return LohaLayer(left[0], right[0], left[1], right[1], alpha)


def loha_core() -> LohaLayer:
    """A convolution (10, 6, 3, 3) of rank 2 in Tucker form."""
    left, right = [numbers(2, 10, seed=seed) for seed in (1, 2)], [numbers(2, 6, seed=seed) for seed in (3, 4)]
    cores = [numbers(2, 2, 3, 3, seed=seed) for seed in (5, 6)]
    return LohaLayer(left[0], right[0], left[1], right[1], 4.0, cores[0], cores[1])


W1, W2, W2_CONV = numbers(2, 3), numbers(5, 4), numbers(5, 2, 3, 3)
LOKR = {
    "both whole": LokrLayer(7.0, lokr_w1=W1, lokr_w2=W2),
    "second of factors": LokrLayer(1.0, lokr_w1=W1, lokr_w2_a=numbers(5, 2), lokr_w2_b=numbers(2, 4)),
    "both of factors": LokrLayer(
        1.0, lokr_w1_a=numbers(2, 2), lokr_w1_b=numbers(2, 3), lokr_w2_a=numbers(5, 2), lokr_w2_b=numbers(2, 4, seed=1)
    ),
    "whole convolution": LokrLayer(7.0, lokr_w1=W1, lokr_w2=W2_CONV),
    "convolution of factors": LokrLayer(1.0, lokr_w1=W1, lokr_w2_a=numbers(5, 2), lokr_w2_b=numbers(2, 2 * 9)),
    "convolution with a core": LokrLayer(
        3.0, lokr_w1=W1, lokr_w2_a=numbers(2, 5), lokr_w2_b=numbers(2, 2), lokr_t2=numbers(2, 2, 3, 3)
    ),
}


def test_loha_is_the_product_of_two_products() -> None:
    layer = loha()
    expected = torch.zeros(10, 12, dtype=torch.float64)
    for out in range(10):
        for into in range(12):
            first = sum(float(layer.hada_w1_a[out, r]) * float(layer.hada_w1_b[r, into]) for r in range(3))
            second = sum(float(layer.hada_w2_a[out, r]) * float(layer.hada_w2_b[r, into]) for r in range(3))
            expected[out, into] = 2.0 / 3 * first * second
    torch.testing.assert_close(layer.delta(torch.float64), expected, rtol=1e-6, atol=1e-6)


def test_loha_with_cores() -> None:
    layer = loha_core()
    assert layer.hada_t1 is not None and layer.hada_t2 is not None
    parts = []
    for core, left, right in (
        (layer.hada_t1, layer.hada_w1_a, layer.hada_w1_b),
        (layer.hada_t2, layer.hada_w2_a, layer.hada_w2_b),
    ):
        weight = torch.zeros(10, 6, 3, 3, dtype=torch.float64)
        for i in range(2):
            for j in range(2):
                outer = left[i].double()[:, None] * right[j].double()[None]
                weight += outer[:, :, None, None] * core[i, j].double()
        parts.append(weight)
    assert layer.weight_shape == (10, 6, 3, 3)
    torch.testing.assert_close(layer.delta(torch.float64), 4.0 / 2 * parts[0] * parts[1])


@pytest.mark.parametrize("name", LOKR)
def test_lokr_is_a_kronecker_product(name: str) -> None:
    layer = LOKR[name]
    doubles = {key: value.double() for key, value in layer.tensors().items()}
    first = doubles.get("lokr_w1")
    if first is None:
        first = doubles["lokr_w1_a"] @ doubles["lokr_w1_b"]
    second = doubles.get("lokr_w2")
    if second is None and "lokr_t2" in doubles:
        second = torch.einsum("ijkl,io,jn->onkl", doubles["lokr_t2"], doubles["lokr_w2_a"], doubles["lokr_w2_b"])
    elif second is None:
        second = doubles["lokr_w2_a"] @ doubles["lokr_w2_b"]
    kernel = second.shape[2:]
    expected = torch.zeros(2 * 5, 3 * second.shape[1], *kernel, dtype=torch.float64)
    for row in range(2):
        for column in range(3):
            block = (slice(5 * row, 5 * row + 5), slice(second.shape[1] * column, second.shape[1] * (column + 1)))
            expected[block] = first[row, column] * second
    scale = 1.0 if "whole" in name else layer.alpha / 2
    torch.testing.assert_close(layer.delta(torch.float64), expected * scale)
    assert layer.weight_shape == expected.shape


@pytest.mark.parametrize("make", [linear, conv])
@pytest.mark.parametrize("axis", ["inputs", "outputs"])
def test_dora_gives_columns_or_rows_their_lengths(make, axis: str) -> None:
    plain = make(3, 1.5, seed=1)
    weight = numbers(*plain.weight_shape, seed=9)
    kernel = [1] * (weight.ndim - 2)
    shape = [1, weight.shape[1], *kernel] if axis == "inputs" else [weight.shape[0], 1, *kernel]
    layer = LoraLayer(plain.down, plain.up, plain.alpha, numbers(*shape).abs())
    assert layer.magnitude is not None and layer.name == "DoRA"
    direction = weight.double() + plain.delta(torch.float64)
    expected = torch.empty_like(direction)
    for index in range(max(shape)):
        place = (slice(None), index) if axis == "inputs" else (index,)
        expected[place] = layer.magnitude.flatten()[index].double() * direction[place] / direction[place].norm()
    torch.testing.assert_close(weight.double() + layer.change(weight, torch.float64), expected)
    # at strength 0.5, half of the change
    half = add_changes(weight, [(layer, 0.5)], torch.float64)
    torch.testing.assert_close(half, (weight.double() + expected) / 2)


ALL: dict[str, Layer] = {
    "loha": loha(),
    "loha with cores": loha_core(),
    "loha with dora": LohaLayer(*list(loha().tensors().values()), 2.0, None, None, numbers(1, 12).abs()),
    "dora": LoraLayer(linear(3, 1, seed=1).down, linear(3, 1, seed=1).up, 1.5, numbers(1, 12).abs()),
    "dora by outputs": LoraLayer(conv(3, 1, seed=1).down, conv(3, 1, seed=1).up, 1.5, numbers(8, 1, 1, 1).abs()),
    **{f"lokr, {name}": layer for name, layer in LOKR.items()},
}


@pytest.mark.parametrize("name", ALL)
def test_files_of_every_kind_come_back_the_same(name: str, tmp_path: Path) -> None:
    layer, path = ALL[name], tmp_path / "a.safetensors"
    write_lora(path, LoraFile({QUERY: layer}, network_metadata({QUERY: layer}, "sd_v1")), precision="float")
    assert set(load_file(path)) == {f"{QUERY}.{key}" for key in (*layer.tensors(), "alpha")}
    lora = read_lora(path)
    again = lora.layers[QUERY]
    assert type(again) is type(layer) and lora.kinds == [layer.name] and not lora.unknown
    weight = numbers(*again.weight_shape, seed=5)
    assert torch.equal(again.change(weight), layer.change(weight))
    assert inspect_lora(path)["kinds"] == {layer.name: 1}
    assert lora.metadata["ss_network_module"] == "lycoris.kohya"


def test_names_are_those_of_lycoris() -> None:
    assert set(loha().tensors()) == {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
    assert set(ALL["dora"].tensors()) == {"lora_down.weight", "lora_up.weight", "dora_scale"}


def test_pefts_dora_has_a_length_for_each_output(tmp_path: Path) -> None:
    layer, lengths = linear(4, 1, seed=1), numbers(10).abs()
    stem = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{stem}.lora_A.weight": layer.down, f"{stem}.lora_B.weight": layer.up}
    save_file({**tensors, f"{stem}.lora_magnitude_vector": lengths}, tmp_path / "a.safetensors")
    magnitude = read_lora(tmp_path / "a.safetensors").layers[QUERY].magnitude
    assert magnitude is not None and magnitude.shape == (10, 1) and torch.equal(magnitude.flatten(), lengths)


@pytest.mark.parametrize(
    "change",
    [
        {"hada_w1_b": None},
        {"hada_w1_b": numbers(2, 12)},
        {"hada_w2_b": numbers(3, 11)},
        {"hada_t1": numbers(3, 3, 3, 3)},
        {"dora_scale": numbers(1, 11)},
        {"dora_scale": numbers(12)},
    ],
    ids=str,
)
def test_loha_tensors_that_do_not_fit_are_refused(change: dict[str, Tensor | None], tmp_path: Path) -> None:
    tensors = {**loha().tensors(), **change}
    kept = {f"{CONV}.{name}": value for name, value in tensors.items() if value is not None}
    save_file(kept, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a.safetensors is not a usable LoRA"):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "tensors",
    [
        {"lokr_w1": W1},
        {"lokr_w1": W1, "lokr_w2_a": numbers(5, 2)},
        {"lokr_w1": W1, "lokr_w2_a": numbers(5, 2), "lokr_w2_b": numbers(3, 4)},
        {"lokr_w1": W1[0], "lokr_w2": W2},
    ],
    ids=str,
)
def test_lokr_tensors_that_do_not_fit_are_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({f"{QUERY}.{name}": value for name, value in tensors.items()}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a.safetensors is not a usable LoRA"):
        read_lora(tmp_path / "a.safetensors")


def test_alpha_that_is_missing_is_the_rank(tmp_path: Path) -> None:
    save_file({f"{QUERY}.{name}": value for name, value in loha().tensors().items()}, tmp_path / "a.safetensors")
    assert read_lora(tmp_path / "a.safetensors").layers[QUERY].scale == 1


def test_sides_of_a_kronecker_product_are_pefts() -> None:
    assert kronecker_sides(127, -1) == (1, 127) and kronecker_sides(128, 4) == (4, 32)
    for size in range(1, 1300, 7):
        for factor in (-1, 1, 2, 4, 5, 8, 16, 100):
            assert kronecker_sides(size, factor) == tuple(sorted(factorization(size, factor))), (size, factor)


SHAPES = {(10, 12): True, (10, 3, 2, 2): True, (10, 12, 1, 1): True, (10, 13): False, (10, 12, 3, 3): False}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flat_loha_fits_a_convolution_of_as_many_numbers(shape: tuple[int, ...]) -> None:
    assert loha().fits(shape) is SHAPES[shape]
    if SHAPES[shape]:
        assert torch.equal(loha().change(numbers(*shape)).flatten(1), loha().delta())


def test_kronecker_products_of_matrices_that_lie_oddly_in_memory() -> None:
    """A side of 1 may have any stride; ``torch.kron`` fails on some. Such come from decompositions and from files."""
    first = torch.as_strided(numbers(3), (3, 1), (1, 7))
    for second in (numbers(4, 5), numbers(5, 4).T, numbers(2, 5, 3, 3)):
        found = kronecker(first, second)
        assert found.shape == (3 * second.shape[0], *second.shape[1:])
        for row in range(3):
            part = found[row * second.shape[0] : (row + 1) * second.shape[0]]
            assert torch.equal(part, first[row, 0] * second)
