"""Singular value decompositions of weight changes: of factors through their small core, of matrices exactly or fast.

``values`` are always in falling order; the best approximation of rank k keeps the first k (Eckart and Young 1936).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.devices import seeded_generator
from trainer.errors import UserError
from trainer.lora.layers import LoraLayer, Shape

_OVERSAMPLING = 16
_POWER_STEPS = 2
_EXACT_SHARE = 0.5
"""Above this share of the smaller side, the basis of the fast method is no cheaper than the exact one."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """``left * values @ right``, the leading part of a matrix (out, in).

    Attributes:
        left: (out, k), orthonormal columns.
        values: (k,) in falling order.
        right: (k, in), orthonormal rows.
        energy: squared Frobenius norm of the whole matrix, the part that is left out included.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    energy: float

    def kept(self, rank: int) -> float:
        """The Frobenius norm of the first ``rank`` values next to that of the whole; 1 for a matrix of zeros."""
        return math.sqrt(min(1.0, float(self.values[:rank].square().sum()) / self.energy)) if self.energy else 1.0

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """``up`` (out, rank) and ``down`` (rank, in) whose product keeps ``rank`` values.

        Each takes the root of the values: factors of like size lose least in 16-bit formats.
        """
        root = self.values[:rank].sqrt()
        return self.left[:, :rank] * root, root[:, None] * self.right[:rank]


def of_product(up: Tensor, down: Tensor) -> Decomposition:
    """All singular values of ``up @ down``, (out, r) and (r, in), in float64.

    With ``up = Qu Ru`` and ``down^T = Qd Rd`` the product is ``Qu (Ru Rd^T) Qd^T``: only a matrix of the rank's size is
    decomposed, never one of the weight's.
    """
    up_basis, up_core = torch.linalg.qr(up.double())
    down_basis, down_core = torch.linalg.qr(down.double().T)
    left, values, right = _svd(_finite(up_core @ down_core.T))
    return Decomposition(up_basis @ left, values, right @ down_basis.T, float(values.square().sum()))


def of_matrix(matrix: Tensor, rank: int, *, exact: bool = False) -> Decomposition:
    """The ``rank`` largest singular values of a float32 matrix, or as many as it has.

    Large matrices are decomposed in a basis that two steps of a block Krylov iteration find (Halko, Martinsson and
    Tropp 2011, 0909.4061; Musco and Musco 2015, 1504.05477), from random numbers that are the same each time. What it
    loses next to the exact decomposition was measured: see ``docs/adr``, 0021.

    Args:
        matrix: (out, in).
        rank: how many values are wanted.
        exact: decompose the matrix itself, whatever its size.

    Raises UserError for numbers that are not finite.
    """
    energy = float(torch.linalg.vector_norm(_finite(matrix), dtype=torch.float64) ** 2)
    smaller = min(matrix.shape)
    if exact or (rank + _OVERSAMPLING) * (1 + _POWER_STEPS) > _EXACT_SHARE * smaller:
        left, values, right = _svd(matrix)
    elif matrix.shape[0] > matrix.shape[1]:
        right, values, left = _in_krylov_basis(matrix.T, rank)
        left, right = left.T, right.T
    else:
        left, values, right = _in_krylov_basis(matrix, rank)
    return Decomposition(left[:, :rank], values[:rank], right[:rank], energy)


def layer_of(up: Tensor, down: Tensor, shape: Shape, alpha: float, magnitude: Tensor | None = None) -> LoraLayer:
    """The layer with these factors, (out, r) and (r, in), for a weight of a linear layer's or a convolution's shape."""
    rank = down.shape[0]
    if len(shape) == 4:
        return LoraLayer(
            down.reshape(rank, *shape[1:]).contiguous(), up[:, :, None, None].contiguous(), alpha, magnitude
        )
    return LoraLayer(down.contiguous(), up.contiguous(), alpha, magnitude)


def _in_krylov_basis(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Left vectors, values and right vectors of a wide matrix, in the space of ``A R, (A A^T) A R, (A A^T)^2 A R``."""
    generator = seeded_generator(0, "svd", *matrix.shape, rank)
    start = torch.randn(matrix.shape[1], rank + _OVERSAMPLING, generator=generator).to(matrix)
    block = torch.linalg.qr(matrix @ start).Q
    blocks = [block]
    for _ in range(_POWER_STEPS):
        block = torch.linalg.qr(matrix @ (matrix.T @ block)).Q
        blocks.append(block)
    basis = torch.linalg.qr(torch.cat(blocks, dim=1)).Q
    small = (basis.T @ matrix).double()
    squares, vectors = torch.linalg.eigh(small @ small.T)  # squaring costs half the digits: float64 has twice as many
    vectors = vectors.flip(1)[:, :rank]
    right = vectors.T @ small
    values = squares.flip(0)[:rank].clamp(min=0).sqrt()
    right /= torch.linalg.vector_norm(right, dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return basis @ vectors.to(basis), values.to(matrix), right.to(matrix)


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Left vectors, values and right vectors."""
    try:
        return torch.linalg.svd(matrix, full_matrices=False)
    except torch.linalg.LinAlgError:  # LAPACK's fast method gives up on some matrices that more digits make harmless
        left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
        return left.to(matrix), values.to(matrix), right.to(matrix)


def _finite(matrix: Tensor) -> Tensor:
    """The matrix. Raises UserError when it holds numbers that are not finite."""
    if not bool(torch.isfinite(matrix).all()):
        message = "A layer's change holds numbers that are too large to be computed with."
        raise UserError("lora.overflow", message, "Use smaller strengths; if that fails, the file is broken.")
    return matrix
