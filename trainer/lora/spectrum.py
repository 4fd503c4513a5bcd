"""How strong a layer's change is, and how much of it a lower rank would keep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.lora.layers import Layer, LohaLayer, LokrLayer, LoraLayer, product_norm

_LARGEST_CORE = 1024
"""Singular values are looked for where a matrix of at most this size has them: milliseconds, not seconds, a layer."""


@dataclass(frozen=True)
class Spectrum:
    """The size of a layer's change; of a DoRA's without its magnitude, which needs the model's weights.

    Attributes:
        norm: Frobenius norm.
        squares: squared singular values in falling order, float64; None where they would take long.
    """

    norm: float
    squares: Tensor | None

    def rank_for(self, share: float) -> int | None:
        """The smallest rank that keeps this share of the squared norm."""
        if self.squares is None or not self.norm:
            return None
        kept = self.squares.cumsum(0) / self.squares.sum()
        return min(int((kept < share - 1e-12).sum()) + 1, len(kept))


def spectrum(layer: Layer) -> Spectrum:
    """Norm and singular values of a layer's change, in float64."""
    if isinstance(layer, LoraLayer):
        up, down = layer.up.double().flatten(1), layer.down.double().flatten(1)
        squares = _squares(up, down) * layer.scale**2 if layer.rank <= _LARGEST_CORE else None
        return Spectrum(abs(layer.scale) * float(product_norm(up, down)), squares)
    if isinstance(layer, LokrLayer):
        first, second = (half.flatten(1) for half in layer.halves(torch.float64))
        values = torch.kron(torch.linalg.svdvals(first), torch.linalg.svdvals(second)) * abs(layer.scale)
        squares = values.square().sort(descending=True).values
        return Spectrum(float(squares.sum().sqrt()), squares)
    norm = float(layer.delta(torch.float64).norm())
    if isinstance(layer, LohaLayer) and layer.hada_t1 is None and layer.rank**2 <= _LARGEST_CORE // 4:
        pairs = ((layer.hada_w1_a, layer.hada_w2_a), (layer.hada_w1_b.T, layer.hada_w2_b.T))
        up, right = ((one.double()[:, :, None] * two.double()[:, None, :]).flatten(1) for one, two in pairs)
        return Spectrum(norm, _squares(up, right.T) * layer.scale**2)
    return Spectrum(norm, None)


def _squares(up: Tensor, down: Tensor) -> Tensor:
    """Squared singular values of ``up @ down`` through matrices of the rank's size.

    They are the eigenvalues of ``G H``, with ``G = up^T up`` and ``H = down down^T``, and so of the symmetric
    ``sqrt(D) V^T H V sqrt(D)`` with ``G = V D V^T``.
    """
    values, vectors = torch.linalg.eigh(up.T @ up)
    half = vectors * values.clamp(min=0).sqrt()
    return torch.linalg.eigvalsh(half.T @ (down @ down.T) @ half).clamp(min=0).flip(0)
