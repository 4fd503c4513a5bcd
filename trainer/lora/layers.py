"""What one layer of a LoRA file does to a weight, for every kind of file.

Each kind has its tensors, the change they stand for (``delta``), and their names in files. DoRA is no kind of its own
but a magnitude that any of them may carry (``dora_scale``): Liu et al. 2024 (2402.09353), equation 5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

Shape = tuple[int, ...]


class Layer(ABC):
    """One layer's change of a weight.

    Attributes:
        kind: ``LoRA``, ``LoHa`` or ``LoKr``.
        alpha: strength; what it is divided by is the kind's ``scale``.
        magnitude: DoRA's, (1, in) or (out, 1), for a convolution (1, in, 1, 1) or (out, 1, 1, 1); None without DoRA.
    """

    kind: ClassVar[str]
    alpha: float
    magnitude: Tensor | None

    @property
    @abstractmethod
    def rank(self) -> int:
        """The number of rows and columns of the factors."""

    @property
    def scale(self) -> float:
        """What the product of the tensors is multiplied with."""
        return self.alpha / self.rank

    @property
    @abstractmethod
    def weight_shape(self) -> Shape:
        """Shape of the change; where a file does not tell a kernel's size, that of a matrix with as many numbers."""

    @abstractmethod
    def delta(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The scaled product of the tensors, of ``weight_shape``, computed in ``dtype``; a magnitude is not in it."""

    @property
    def is_plain(self) -> bool:
        """Whether this is a LoRA without magnitude."""
        return self.kind == "LoRA" and self.magnitude is None

    @property
    def name(self) -> str:
        """The kind in full: ``LoHa``, ``DoRA``, ``LoHa with DoRA``."""
        if self.magnitude is None:
            return self.kind
        return "DoRA" if self.kind == "LoRA" else f"{self.kind} with DoRA"

    def fits(self, shape: Shape) -> bool:
        """Whether a weight of this shape can be changed by this layer. A 1x1 kernel may be left out."""
        known = len(self.weight_shape) == 4 or len(plain_shape(shape)) == 2
        own, wanted = (self.weight_shape, shape) if known else (self.weight_shape, _flat(shape))
        return plain_shape(own) == plain_shape(wanted)

    def change(self, weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """What is added to ``weight`` at strength 1, shaped like it, computed in ``dtype``.

        With DoRA: ``m * (W + delta) / ||W + delta|| - W``. The norm is taken over the dimensions in which the
        magnitude has size 1: the outputs for (1, in), the inputs for (out, 1).
        """
        delta = self.delta(dtype).to(weight.device).reshape(weight.shape)
        if self.magnitude is None:
            return delta
        base = weight.to(dtype)
        return decomposed(base + delta, self.magnitude.to(weight.device, dtype)) - base

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their names behind the layer's, without alpha."""
        found = {name: getattr(self, name) for name in self.tensor_names()}
        named = {name if self.kind != "LoRA" else f"lora_{name}.weight": value for name, value in found.items()}
        if self.magnitude is not None:
            named["dora_scale"] = self.magnitude
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def tensor_names(cls) -> list[str]:
        """The fields that hold tensors of this kind."""
        return [field.name for field in fields(cls) if field.name not in ("alpha", "magnitude")]  # type: ignore


def decomposed(direction: Tensor, magnitude: Tensor) -> Tensor:
    """``m * V / ||V||`` (DoRA, equation 5). (1, in) is the paper's: a norm for each input, over the outputs."""
    magnitude = magnitude.reshape(*magnitude.shape, *[1] * (direction.ndim - magnitude.ndim))
    return direction * (magnitude / magnitude_of(direction, magnitude.shape))


def magnitude_of(weight: Tensor, shape: Shape) -> Tensor:
    """The norms of a weight's columns, or rows, in a shape such as (1, in); never 0, to be divided by."""
    dims = [dim for dim, size in enumerate(shape) if size == 1]
    return torch.linalg.vector_norm(weight, dim=dims, keepdim=True).clamp(min=torch.finfo(weight.dtype).eps)


@dataclass(frozen=True, eq=False)
class LoraLayer(Layer):
    """LoRA (Hu et al. 2021, 2106.09685): ``alpha / rank * up @ down``.

    Attributes:
        down: (rank, in) for a linear layer, (rank, in, k, k) for a convolution.
        up: (out, rank) or (out, rank, 1, 1).
    """

    kind: ClassVar[str] = "LoRA"

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def is_conv(self) -> bool:
        """Whether the factors are convolutions."""
        return self.down.ndim == 4

    @property
    def weight_shape(self) -> Shape:
        return (self.up.shape[0], *self.down.shape[1:])

    def delta(self, dtype: torch.dtype = torch.float32) -> Tensor:
        product = self.up.to(dtype).flatten(1) @ self.down.to(dtype).flatten(1)
        return product.mul_(self.scale).reshape(self.weight_shape)


@dataclass(frozen=True, eq=False)
class LohaLayer(Layer):
    """LoHa (Hyeon-Woo et al. 2021, 2108.06098; LyCORIS): ``alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b)``.

    Attributes:
        hada_w1_a: (out, rank), like ``hada_w2_a``; (rank, out) with a core.
        hada_w1_b: (rank, in) or (rank, in * k * k), like ``hada_w2_b``.
        hada_t1: (rank, rank, k, k) core of a convolution in Tucker form, like ``hada_t2``; None otherwise.
    """

    kind: ClassVar[str] = "LoHa"

    hada_w1_a: Tensor
    hada_w1_b: Tensor
    hada_w2_a: Tensor
    hada_w2_b: Tensor
    alpha: float
    hada_t1: Tensor | None = None
    hada_t2: Tensor | None = None
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.hada_w1_b.shape[0]

    @property
    def weight_shape(self) -> Shape:
        if self.hada_t1 is None:
            return (self.hada_w1_a.shape[0], self.hada_w1_b.shape[1])
        return (self.hada_w1_a.shape[1], self.hada_w1_b.shape[1], *self.hada_t1.shape[2:])

    def delta(self, dtype: torch.dtype = torch.float32) -> Tensor:
        first = factor_product(self.hada_w1_a.to(dtype), self.hada_w1_b.to(dtype), _to(self.hada_t1, dtype))
        second = factor_product(self.hada_w2_a.to(dtype), self.hada_w2_b.to(dtype), _to(self.hada_t2, dtype))
        return first * second * self.scale


@dataclass(frozen=True, eq=False)
class LokrLayer(Layer):
    """LoKr (Yeh et al. 2023, 2309.14859, section 3; LyCORIS): ``scale * kron(w1, w2)``.

    Each of the two is there as one matrix or as the product of two factors. ``scale`` is ``alpha / rank``; where both
    are whole there is no rank, and it is 1.

    Attributes:
        lokr_w1: (out_1, in_1), or ``lokr_w1_a`` (out_1, rank) and ``lokr_w1_b`` (rank, in_1).
        lokr_w2: (out_2, in_2) or (out_2, in_2, k, k); or ``lokr_w2_a`` (out_2, rank) and ``lokr_w2_b``
            (rank, in_2 * k * k); or with a core ``lokr_t2`` (rank, rank, k, k) of Tucker form
            (rank, out_2) and (rank, in_2).
    """

    kind: ClassVar[str] = "LoKr"

    alpha: float
    lokr_w1: Tensor | None = None
    lokr_w1_a: Tensor | None = None
    lokr_w1_b: Tensor | None = None
    lokr_w2: Tensor | None = None
    lokr_w2_a: Tensor | None = None
    lokr_w2_b: Tensor | None = None
    lokr_t2: Tensor | None = None
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """The rank of the factors; where both matrices are whole, alpha, which LyCORIS writes then."""
        for factor in (self.lokr_w1_b, self.lokr_w2_b):
            if factor is not None:
                return factor.shape[0]
        return max(1, round(self.alpha))

    @property
    def sides(self) -> tuple[int, int]:
        """Shape of the first matrix."""
        rows, columns = self.halves(torch.float32)[0].shape
        return rows, columns

    @property
    def scale(self) -> float:
        return 1.0 if self.lokr_w1_b is None and self.lokr_w2_b is None else self.alpha / self.rank

    @property
    def weight_shape(self) -> Shape:
        first, second = (half.shape for half in self.halves(torch.float32))
        return (first[0] * second[0], first[1] * second[1], *second[2:])

    def delta(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return kronecker(*self.halves(dtype)) * self.scale

    def halves(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """w1 and w2, each as one matrix or kernel."""
        first = _whole(self.lokr_w1, self.lokr_w1_a, self.lokr_w1_b, None, dtype)
        return first, _whole(self.lokr_w2, self.lokr_w2_a, self.lokr_w2_b, self.lokr_t2, dtype)


def factor_product(left: Tensor, right: Tensor, core: Tensor | None = None) -> Tensor:
    """``left @ right``, or with a core (Tucker) the weight ``sum_ij core[i, j] left[i, out] right[j, in]``."""
    return left @ right if core is None else torch.einsum("ijkl,io,jn->onkl", core, left, right)


def without_core(left: Tensor, right: Tensor, core: Tensor | None) -> tuple[Tensor, Tensor]:
    """Factors (out, rank) and (rank, in * k * k) with the same product as two and a core, float32: exact."""
    left, right = left.float(), right.float()
    return (left, right) if core is None else (left.T, torch.einsum("ijkl,jn->inkl", core.float(), right).flatten(1))


def kronecker(first: Tensor, second: Tensor) -> Tensor:
    """``kron(first, second)`` of a matrix and a matrix or a kernel (out, in, k, k).

    Written out, as ``torch.kron`` refuses matrices of one row or column that lie in memory in an unusual way.
    """
    kernel = second.shape[2:]
    product = first.reshape(first.shape[0], 1, first.shape[1], 1, *[1] * len(kernel)) * second[None, :, None]
    return product.reshape(first.shape[0] * second.shape[0], first.shape[1] * second.shape[1], *kernel)


def plain_shape(shape: Shape) -> Shape:
    """A weight's shape with a 1x1 kernel left out: old and new models differ in how they keep such layers."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def product_norm(up: Tensor, down: Tensor) -> Tensor:
    """Frobenius norm of ``up @ down`` as ``sqrt(tr((up^T up)(down down^T)))``, without forming the product.

    Unless the product is the smaller, as after an exact merge of many.
    """
    up, down = up.flatten(1), down.flatten(1)
    if up.shape[1] > min(up.shape[0], down.shape[1]):
        return (up @ down).norm()
    return ((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt()


def add_changes(weight: Tensor, changes: Iterable[tuple[Layer, float]], dtype: torch.dtype) -> Tensor:
    """``W + sum(ratio * change)``, shaped like ``W`` and in ``dtype``; every change is that of ``W`` itself."""
    result = weight.to(dtype, copy=True).contiguous()
    for layer, ratio in changes:
        if isinstance(layer, LoraLayer) and layer.is_plain:
            up, down = (factor.to(weight.device, dtype).flatten(1) for factor in (layer.up, layer.down))
            result.flatten(1).addmm_(up, down, alpha=ratio * layer.scale)
        else:
            result.add_(layer.change(weight, dtype).to(result), alpha=ratio)
    return result


def _flat(shape: Shape) -> Shape:
    inputs = 1
    for size in shape[1:]:
        inputs *= size
    return (shape[0], inputs)


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _whole(
    matrix: Tensor | None, left: Tensor | None, right: Tensor | None, core: Tensor | None, dtype: torch.dtype
) -> Tensor:
    if matrix is not None:
        return matrix.to(dtype)
    if left is None or right is None:
        raise ValueError("a LoKr layer has neither a whole matrix nor both of its factors")
    return factor_product(left.to(dtype), right.to(dtype), _to(core, dtype))
