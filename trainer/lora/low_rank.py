"""LoHa and LoKr layers made LoRA layers: the best approximation of a rank, and how far it is off.

By the singular values of the change (Eckart and Young 1936), found where possible without the change itself:

* a LoHa is ``(a1 @ b1) * (a2 @ b2)``, a product of two matrices of rank r^2: each row of the left one holds the
  products of the rows of ``a1`` and ``a2`` (Khatri and Rao 1968);
* the singular vectors of ``kron(A, B)`` are the Kronecker products of those of A and B (Van Loan 2000, section 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.lora.decompose import Decomposition, layer_of, of_matrix, of_product
from trainer.lora.layers import Layer, LohaLayer, LokrLayer, LoraLayer, kronecker


@dataclass(frozen=True)
class LowRank:
    """A layer as a LoRA layer.

    Attributes:
        layer: the LoRA layer; its alpha is its rank.
        norm: Frobenius norm of the change it stands for.
        lost: Frobenius norm of what is missing.
        full_rank: the rank with which nothing is lost.
    """

    layer: LoraLayer
    norm: float
    lost: float
    full_rank: int

    @property
    def error(self) -> float:
        """What is missing as a share of the whole, 0 to 1."""
        return self.lost / self.norm if self.norm else 0.0


def as_lora(layer: Layer, rank: int) -> LowRank:
    """The LoRA layer of at most ``rank`` that is closest to a layer's change.

    A magnitude (DoRA) belongs to the sum of weight and change, and stays as it is.
    """
    found = decomposed(layer)
    smallest = found.values[:1] * len(found.values) * torch.finfo(found.values.dtype).eps  # below is rounding error
    full_rank = max(1, int((found.values > smallest).sum()))
    kept = min(rank, full_rank)
    dtype = next(iter(layer.tensors().values())).dtype
    up, down = (factor.to(dtype) for factor in found.factors(kept))
    made = layer_of(up, down, layer.weight_shape, float(kept), layer.magnitude)
    return LowRank(made, math.sqrt(found.energy), float(found.values[kept:].norm()), full_rank)


def decomposed(layer: Layer) -> Decomposition:
    """All singular values of a layer's change as a matrix (out, in * k * k), in float64."""
    if isinstance(layer, LokrLayer):
        first, second = layer.halves(torch.float64)
        return _of_kronecker(first * layer.scale, second.flatten(1))
    if isinstance(layer, LohaLayer) and layer.hada_t1 is None and layer.rank**2 < min(layer.weight_shape):
        up = _row_products(layer.hada_w1_a.double(), layer.hada_w2_a.double()) * layer.scale
        down = _row_products(layer.hada_w1_b.double().T, layer.hada_w2_b.double().T)
        return of_product(up, down.T)
    matrix = layer.delta(torch.float64).flatten(1)
    return of_matrix(matrix, min(matrix.shape), exact=True)


def _row_products(first: Tensor, second: Tensor) -> Tensor:
    """(n, r) and (n, r) to (n, r * r): for each row all products of an element of one and one of the other."""
    return (first[:, :, None] * second[:, None, :]).flatten(1)


def _of_kronecker(first: Tensor, second: Tensor) -> Decomposition:
    one, two = (of_matrix(half, min(half.shape), exact=True) for half in (first, second))
    values, order = torch.kron(one.values, two.values).sort(descending=True)
    left, right = kronecker(one.left, two.left)[:, order], kronecker(one.right, two.right)[order]
    return Decomposition(left, values, right, one.energy * two.energy)
