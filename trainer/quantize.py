"""The frozen denoiser in 8 or 4 bits: weights are unpacked layer by layer, when they are used.

Nothing but torch is needed. A layer keeps its class's looks (``weight``, ``in_features``, ``kernel_size`` ...), so that
adapters go on it as on any other. The backward pass unpacks the weight again instead of keeping it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import Quantize
from trainer.families.convolutions import LargeConv2d
from trainer.frozen_layers import FrozenLayer

FP8_LARGEST = 448.0  # of float8_e4m3fn
INT8_LARGEST = 127.0
NF4_BLOCK = 64
"""Weights that share a scale in ``nf4``."""

# Dettmers et al. 2023 (2305.14314), appendix E: quantiles of the normal distribution in [-1, 1], zero among them
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_LEFT_ALONE = ("conv_in", "conv_out", "time_embedding", "add_embedding")  # small, and the rest hangs on them


def quantize_denoiser(denoiser: nn.Module, kind: Quantize, device: torch.device | None = None) -> None:
    """Pack the linear and convolution layers of a frozen denoiser in place; ``none`` leaves it as it is.

    The first and last convolution and the embeddings of time and size stay as they are. With a device each weight is
    packed there and stays there: the device never holds all of them unpacked.
    """
    if kind == "none":
        return
    for name, layer in list(denoiser.named_modules()):
        quantized = _QUANTIZED.get(type(layer))
        if quantized is not None and name.partition(".")[0] not in _LEFT_ALONE:
            _pack_layer(layer, quantized, kind, device)


def keep_as_it_is(layer: nn.Module) -> None:
    """Let a plain frozen layer hold its weight as a packed one does, unrounded; others stay as they are."""
    if (quantized := _QUANTIZED.get(type(layer))) is not None:
        _pack_layer(layer, quantized, "none")


def _pack_layer(
    layer: nn.Module, quantized: type[nn.Module], kind: Quantize, device: torch.device | None = None
) -> None:
    weight = layer._parameters.pop("weight")
    assert weight is not None
    packed, scale = pack(weight.detach().to(device), kind)
    layer.__class__ = quantized
    layer.register_buffer("packed", packed)
    layer.register_buffer("scale", scale)
    vars(layer).update(kind=kind, weight_shape=weight.shape, weight_dtype=weight.dtype)


def pack(weight: Tensor, kind: Quantize) -> tuple[Tensor, Tensor]:
    """A weight (out, ...) in fewer bits, and what its numbers are to be multiplied with, float32.

    ``fp8`` and ``int8``: the weight's shape, and a scale for each output. ``nf4``: two numbers in a byte, row by row,
    and a scale for each ``NF4_BLOCK`` of them. ``none``: the weight itself.
    """
    if kind == "none":
        return weight, weight.new_empty(0)
    exact = weight.float()
    if kind == "nf4":
        return _pack_nf4(exact)
    largest = exact.abs().amax(dim=tuple(range(1, exact.ndim)), keepdim=True)
    scale = largest.clamp(min=torch.finfo(torch.float32).tiny) / (FP8_LARGEST if kind == "fp8" else INT8_LARGEST)
    if kind == "fp8":
        return (exact / scale).clamp(-FP8_LARGEST, FP8_LARGEST).to(torch.float8_e4m3fn), scale
    return (exact / scale).round().to(torch.int8), scale


def unpack(packed: Tensor, scale: Tensor, kind: Quantize, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """The weight that ``pack`` packed, rounded as it is now."""
    if kind == "none":
        return packed.to(dtype)
    if kind == "nf4":
        blocks = functional.embedding(packed.int(), _nf4_pairs(packed.device)).view(-1, NF4_BLOCK)
        return _scaled(blocks, scale, dtype).flatten()[: shape.numel()].view(shape)
    return _scaled(packed.float() if kind == "fp8" else packed, scale, dtype)


@functools.cache
def _nf4_pairs(device: torch.device) -> Tensor:
    """The two numbers that each byte stands for, (256, 2). Kept: a copy to a GPU would be waited for in each layer."""
    levels = torch.tensor(NF4_LEVELS, device=device)
    return torch.stack([levels.repeat_interleave(len(levels)), levels.repeat(len(levels))], dim=1)


def _scaled(numbers: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The product, computed in float32 and rounded once, without a float32 copy of it on a GPU."""
    return torch.mul(numbers, scale, out=torch.empty(numbers.shape, dtype=dtype, device=numbers.device))


def _pack_nf4(exact: Tensor) -> tuple[Tensor, Tensor]:
    flat = exact.flatten()
    blocks = functional.pad(flat, (0, -len(flat) % NF4_BLOCK)).view(-1, NF4_BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    levels = torch.tensor(NF4_LEVELS, device=exact.device)
    codes = torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2).to(torch.uint8).view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], scale


class PackedWeight(FrozenLayer):
    """A layer whose weight is packed; mixed into the layer's own class."""

    packed: Tensor
    scale: Tensor
    kind: Quantize
    weight_shape: torch.Size
    weight_dtype: torch.dtype

    @property
    def weight(self) -> Tensor:
        """The weight as it counts, unpacked anew each time."""
        weight = self.weight_in(self.weight_dtype)
        return weight.clone() if self.kind == "none" else weight

    def weight_in(self, dtype: torch.dtype) -> Tensor:
        packed, scale = self.stored()
        return unpack(packed, scale, self.kind, self.weight_shape, dtype)

    def stored(self) -> tuple[Tensor, Tensor]:
        """The packed weight and its scale, where the layer computes."""
        return self.packed, self.scale

    def lie_in(
        self, stored: Callable[[], tuple[Tensor, Tensor]], moved: Callable[[Callable[[Tensor], Tensor]], None]
    ) -> None:
        """Let the packed weight lie elsewhere; ``stored`` gives it, ``moved`` is told what moves the layer."""
        del self.packed, self.scale
        vars(self).update(stored=stored, _moved=moved)

    def _apply(self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        if moved := vars(self).get("_moved"):
            moved(change)
        return super()._apply(change, recurse)


class QuantizedLinear(PackedWeight, nn.Linear):  # type: ignore[override]
    """A frozen linear layer with a packed weight."""


class QuantizedConv2d(PackedWeight, nn.Conv2d):  # type: ignore[override]
    """A frozen convolution with a packed weight."""


_QUANTIZED: dict[type, type[nn.Module]] = {
    nn.Linear: QuantizedLinear,
    nn.Conv2d: QuantizedConv2d,
    LargeConv2d: QuantizedConv2d,
}
