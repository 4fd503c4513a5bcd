"""What each of several LoRAs does to one weight: as two thin factors where it can be, else as a whole matrix.

Matrices are (outputs, inputs); a convolution's kernel counts as inputs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.lora.layers import Layer, LohaLayer, LokrLayer, LoraLayer, Shape, kronecker, plain_shape

_LARGE_KERNEL = re.compile(r"_(conv[12]?|conv_in|conv_out|in_layers_2|out_layers_3|op|input_blocks_0_0|out_2)$")
_KERNEL_SIDE = 3
_SMALL_KERNEL = re.compile(r"_(conv_shortcut|skip_connection)$")

Factors = tuple[Tensor, Tensor]
"""``up`` (out, r) and ``down`` (r, in), whose product is a change."""


@dataclass(frozen=True, eq=False)
class Part:
    """A LoRA's layer for one weight, and how much of it is wanted.

    Attributes:
        layer: the layer.
        ratio: how much of its change is wanted.
        number: which of the LoRAs it comes from.
        weight: the base model's weight; only for a DoRA, whose change depends on it.
    """

    layer: Layer
    ratio: float
    number: int = 0
    weight: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether this is a LoRA without magnitude."""
        return self.layer.is_plain

    @property
    def factor_rank(self) -> int | None:
        """The rank that the change can be written with exactly, without decomposing it; None for a DoRA's."""
        if self.layer.magnitude is not None:
            return None
        if isinstance(self.layer, LohaLayer):
            return self.layer.hada_w1_b.shape[0] * self.layer.hada_w2_b.shape[0]
        if isinstance(self.layer, LokrLayer):
            first = _rank_of(self.layer.lokr_w1, self.layer.lokr_w1_b)
            return first * _rank_of(self.layer.lokr_w2, self.layer.lokr_w2_b)
        return self.layer.rank

    def factors(self, dtype: torch.dtype) -> Factors:
        """The change at strength 1 as factors of rank ``factor_rank``. Raises ValueError for a DoRA."""
        if self.layer.magnitude is not None:
            raise ValueError("the change of a DoRA has no factors")
        if isinstance(self.layer, LohaLayer):
            return _loha_factors(self.layer, dtype)
        if isinstance(self.layer, LokrLayer):
            return _lokr_factors(self.layer, dtype)
        assert isinstance(self.layer, LoraLayer)
        return self.layer.up.to(dtype).flatten(1) * self.layer.scale, self.layer.down.to(dtype).flatten(1)

    def matrix(self, device: torch.device) -> Tensor:
        """The change at strength 1 as a float32 matrix."""
        if self.layer.magnitude is None:
            return self.layer.delta().to(device).flatten(1)
        if self.weight is None:
            raise ValueError("the change of a DoRA depends on a weight, and none is there")
        return self.layer.change(self.weight.float()).to(device).flatten(1)


def weight_shape_of(module: str, parts: Sequence[Part], *, conv_transformers: bool) -> Shape | None:
    """The shape of the weight that these parts change; None when they are for weights of different shapes.

    A LoHa or LoKr of factors does not tell a convolution's kernel. Then another part tells, or the layer's name does.

    Args:
        module: the layer's kohya key.
        parts: what changes it.
        conv_transformers: whether ``proj_in`` and ``proj_out`` are 1x1 convolutions, as in Stable Diffusion 1.
    """
    shapes: set[Shape] = {part.layer.weight_shape for part in parts}
    told: list[Shape] = [shape for shape in shapes if len(shape) == 4]
    if not told:
        is_matrix = any(isinstance(part.layer, LoraLayer) for part in parts)
        told = [min(shapes) if is_matrix else _by_name(module, min(shapes), conv_transformers)]
    shape = told[0]
    one_kernel = len({plain_shape(each) for each in told}) == 1
    fits = all(_flat(shape) == _flat(each) and (len(each) == 2 or one_kernel) for each in shapes)
    return shape if fits else None


def _by_name(module: str, shape: Shape, conv_transformers: bool) -> Shape:
    """The shape of a weight of which only the matrix is known, and which is no LoRA's linear layer by name."""
    outputs, inputs = shape[0], shape[1]
    if _LARGE_KERNEL.search(module) and inputs % _KERNEL_SIDE**2 == 0:
        return (outputs, inputs // _KERNEL_SIDE**2, _KERNEL_SIDE, _KERNEL_SIDE)
    if _SMALL_KERNEL.search(module) or (conv_transformers and module.endswith(("_proj_in", "_proj_out"))):
        return (outputs, inputs, 1, 1)
    return shape


def _flat(shape: Shape) -> Shape:
    return (shape[0], math.prod(shape[1:]))


def _loha_factors(layer: LohaLayer, dtype: torch.dtype) -> Factors:
    """``(A B) * (C D)`` is a product of rank r*r: row by row ``A x C``, column by column ``B x D`` (Khatri-Rao)."""
    first = _thin(layer.hada_w1_a, layer.hada_w1_b, layer.hada_t1, dtype)
    second = _thin(layer.hada_w2_a, layer.hada_w2_b, layer.hada_t2, dtype)
    up = torch.einsum("or,os->ors", first[0], second[0]).flatten(1)
    down = torch.einsum("rn,sn->rsn", first[1], second[1]).flatten(0, 1)
    return up * layer.scale, down


def _lokr_factors(layer: LokrLayer, dtype: torch.dtype) -> Factors:
    """``kron(A B, C D) = kron(A, C) kron(B, D)``."""
    first = _whole_or_thin(layer.lokr_w1, layer.lokr_w1_a, layer.lokr_w1_b, None, dtype)
    second = _whole_or_thin(layer.lokr_w2, layer.lokr_w2_a, layer.lokr_w2_b, layer.lokr_t2, dtype)
    return kronecker(first[0], second[0]) * layer.scale, kronecker(first[1], second[1])


def _thin(left: Tensor, right: Tensor, core: Tensor | None, dtype: torch.dtype) -> Factors:
    """``factor_product(left, right, core)`` with its kernel flattened, as factors."""
    if core is None:
        return left.to(dtype), right.to(dtype)
    return left.to(dtype).T.contiguous(), torch.einsum("ijkl,jn->inkl", core.to(dtype), right.to(dtype)).flatten(1)


def _whole_or_thin(
    whole: Tensor | None, left: Tensor | None, right: Tensor | None, core: Tensor | None, dtype: torch.dtype
) -> Factors:
    if whole is not None:
        return identity_factors(whole.to(dtype).flatten(1))
    if left is None or right is None:
        raise ValueError("a LoKr layer has neither a whole matrix nor both of its factors")
    return _thin(left, right, core, dtype)


def identity_factors(matrix: Tensor) -> Factors:
    """A matrix as a product with the smaller of the two identities."""
    outputs, inputs = matrix.shape
    if outputs <= inputs:
        return torch.eye(outputs, dtype=matrix.dtype, device=matrix.device), matrix
    return matrix, torch.eye(inputs, dtype=matrix.dtype, device=matrix.device)


def _rank_of(whole: Tensor | None, right: Tensor | None) -> int:
    if whole is not None:
        return min(_flat(tuple(whole.shape)))
    return right.shape[0] if right is not None else 1
