"""Decompositions against numpy's dense SVD in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.lora.decompose import Decomposition, layer_of, of_matrix, of_product


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _with_values(rows: int, columns: int, values: Tensor, seed: int) -> Tensor:
    """A matrix with these singular values, float64."""
    left = torch.linalg.qr(_random(rows, len(values), seed=seed).double()).Q
    right = torch.linalg.qr(_random(columns, len(values), seed=seed + 1).double()).Q
    return left * values.double() @ right.T


def _check_form(found: Decomposition, matrix: Tensor) -> None:
    eye = torch.eye(len(found.values), dtype=found.left.dtype)
    torch.testing.assert_close(found.left.T @ found.left, eye, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.right @ found.right.T, eye, rtol=0, atol=1e-5)
    assert bool((found.values.diff() <= 0).all())
    assert found.energy == pytest.approx(float(matrix.double().square().sum()), rel=1e-6)


def test_the_small_core_gives_the_values_of_the_product() -> None:
    up, down = _random(40, 7, seed=0), _random(7, 60, seed=1)
    found = of_product(up, down)
    dense = up.double().numpy() @ down.double().numpy()
    np.testing.assert_allclose(found.values.numpy(), np.linalg.svd(dense, compute_uv=False)[:7], rtol=1e-10)
    np.testing.assert_allclose((found.left * found.values @ found.right).numpy(), dense, atol=1e-10)
    _check_form(found, up.double() @ down.double())


def test_a_product_of_a_rank_above_the_weights_size() -> None:
    up, down = _random(5, 12, seed=2), _random(12, 8, seed=3)
    found = of_product(up, down)
    assert found.values.shape == (5,)
    torch.testing.assert_close(found.left * found.values @ found.right, up.double() @ down.double())


@pytest.mark.parametrize("shape", [(300, 300), (520, 260), (260, 900)], ids=str)
def test_the_fast_way_finds_a_low_rank_change_under_noise(shape: tuple[int, int]) -> None:
    """As when a LoRA was merged into a model that was then saved in 16 bits."""
    known = _with_values(*shape, torch.linspace(3.0, 0.5, 16), seed=4)
    matrix = (known + 1e-4 * _random(*shape, seed=6)).float()
    found = of_matrix(matrix, 16)
    _check_form(found, matrix)
    reference = np.linalg.svd(matrix.double().numpy(), compute_uv=False)[:16]
    np.testing.assert_allclose(found.values.numpy(), reference, rtol=1e-5)
    error = (found.left * found.values @ found.right).double() - known
    assert float(error.norm() / known.norm()) < 2e-3  # the noise that lies in the kept directions


@pytest.mark.parametrize("power", [1.0, 0.5, 0.25])
def test_the_fast_way_is_nearly_the_best_where_values_fall_slowly(power: float) -> None:
    values = torch.arange(1, 401, dtype=torch.float64) ** -power
    matrix = _with_values(400, 500, values, seed=7).float()
    for rank in (8, 32):
        found = of_matrix(matrix, rank)
        assert (rank + 16) * 3 <= 200  # it is the fast way that is tried here
        error = float((matrix.double() - (found.left * found.values @ found.right).double()).norm())
        best = float(values[rank:].square().sum().sqrt())
        assert best * (1 - 1e-5) <= error <= best * 1.002
        assert found.kept(rank) == pytest.approx(math.sqrt(1 - best**2 / float(values.square().sum())), abs=2e-3)


def test_small_matrices_are_decomposed_exactly() -> None:
    matrix = _random(60, 90, seed=9)
    found = of_matrix(matrix, 20)
    reference = np.linalg.svd(matrix.double().numpy(), compute_uv=False)[:20]
    np.testing.assert_allclose(found.values.numpy(), reference, rtol=1e-5)
    assert of_matrix(matrix, 500).values.shape == (60,)


def test_the_fast_way_gives_the_same_numbers_each_time() -> None:
    matrix = _random(300, 320, seed=10)
    first = of_matrix(matrix, 8)
    torch.manual_seed(99)
    again = of_matrix(matrix, 8)
    assert torch.equal(first.left, again.left)
    assert torch.equal(first.right, again.right)
    state = torch.get_rng_state()
    of_matrix(matrix, 8)
    assert torch.equal(torch.get_rng_state(), state)


def test_factors_share_the_values() -> None:
    found = of_product(_random(30, 6, seed=11), _random(6, 20, seed=12))
    up, down = found.factors(4)
    torch.testing.assert_close(up @ down, found.left[:, :4] * found.values[:4] @ found.right[:4])
    torch.testing.assert_close(up.norm(dim=0), down.norm(dim=1))
    whole = found.values.square().sum()
    assert found.kept(4) == pytest.approx(float((found.values[:4].square().sum() / whole).sqrt()))


def test_zeros_have_no_values_and_lose_nothing() -> None:
    found = of_matrix(torch.zeros(200, 300), 4)
    assert not found.values.any()
    assert found.kept(4) == 1.0


def test_layers_have_the_weights_shape() -> None:
    conv = layer_of(_random(8, 2, seed=13), _random(2, 54, seed=14), (8, 6, 3, 3), 2.0)
    assert (conv.down.shape, conv.up.shape) == ((2, 6, 3, 3), (8, 2, 1, 1))
    linear = layer_of(_random(8, 2, seed=13), _random(2, 6, seed=14), (8, 6), 2.0)
    assert (linear.down.shape, linear.up.shape) == ((2, 6), (8, 2))
