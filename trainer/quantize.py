"""The frozen denoiser in 8 or 4 bits: weights are unpacked layer by layer, when they are used.

Nothing but torch is needed. A layer keeps its class's looks (``weight``, ``in_features``, ``kernel_size`` ...), so that
adapters go on it as on any other. The backward pass unpacks the weight again instead of keeping it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from trainer.config import Quantize

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


def quantize_denoiser(denoiser: nn.Module, kind: Quantize) -> None:
    """Pack the linear and convolution layers of a frozen denoiser in place; ``none`` leaves it as it is.

    The first and last convolution and the embeddings of time and size stay as they are.
    """
    if kind == "none":
        return
    for name, layer in list(denoiser.named_modules()):
        quantized = _QUANTIZED.get(type(layer))
        if quantized is not None and name.partition(".")[0] not in _LEFT_ALONE:
            _pack_layer(layer, quantized, kind)


def _pack_layer(layer: nn.Module, quantized: type[nn.Module], kind: Quantize) -> None:
    weight = layer._parameters.pop("weight")
    assert weight is not None
    packed, scale = pack(weight.detach(), kind)
    layer.__class__ = quantized
    layer.register_buffer("packed", packed)
    layer.register_buffer("scale", scale)
    vars(layer).update(kind=kind, weight_shape=weight.shape, weight_dtype=weight.dtype)


def pack(weight: Tensor, kind: Quantize) -> tuple[Tensor, Tensor]:
    """A weight (out, ...) in fewer bits, and what its numbers are to be multiplied with, float32.

    ``fp8`` and ``int8``: the weight's shape, and a scale for each output. ``nf4``: two numbers in a byte, row by row,
    and a scale for each ``NF4_BLOCK`` of them.
    """
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
    if kind != "nf4":
        return (packed.float() * scale).to(dtype)
    levels = torch.tensor(NF4_LEVELS, device=packed.device)
    codes = torch.stack([packed >> 4, packed & 15], dim=-1).flatten().int()
    blocks = levels[codes].view(-1, NF4_BLOCK) * scale
    return blocks.flatten()[: shape.numel()].view(shape).to(dtype)


def _pack_nf4(exact: Tensor) -> tuple[Tensor, Tensor]:
    flat = exact.flatten()
    blocks = functional.pad(flat, (0, -len(flat) % NF4_BLOCK)).view(-1, NF4_BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    levels = torch.tensor(NF4_LEVELS, device=exact.device)
    codes = torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2).to(torch.uint8).view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], scale


class _PackedWeight(nn.Module):
    """A layer whose weight is packed; mixed into the layer's own class."""

    packed: Tensor
    scale: Tensor
    kind: Quantize
    weight_shape: torch.Size
    weight_dtype: torch.dtype

    def __new__(cls, *sizes: Any, **options: Any) -> Any:
        """A layer made anew by this class is a plain one: PEFT makes the factors of a layer by the layer's class."""
        if not sizes and not options:  # copied, with its packed weight
            return super().__new__(cls)
        return cls.__bases__[1](*sizes, **options)

    @property
    def weight(self) -> Tensor:
        """The weight as it counts, unpacked anew each time."""
        return self.unpacked(self.weight_dtype)

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """The weight in a number format."""
        return unpack(self.packed, self.scale, self.kind, self.weight_shape, dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output, in the format of the input or of autocast."""
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        return _Frozen.apply(hidden.to(dtype), self)

    def output(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """What the layer's class computes."""
        raise NotImplementedError

    def input_gradient(self, gradient: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of the input of ``shape`` for that of the output."""
        raise NotImplementedError


class QuantizedLinear(_PackedWeight, nn.Linear):  # type: ignore[override]
    """A frozen linear layer with a packed weight."""

    def output(self, hidden: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        return functional.linear(hidden, weight, bias)

    def input_gradient(self, gradient: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        return gradient @ weight


class QuantizedConv2d(_PackedWeight, nn.Conv2d):  # type: ignore[override]
    """A frozen convolution with a packed weight."""

    def output(self, hidden: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        return self._conv_forward(hidden, weight, bias)

    def input_gradient(self, gradient: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        sizes: Any = (self.stride, self.padding, self.dilation, self.groups)
        return conv2d_input(shape, weight, gradient, *sizes)


class _Frozen(torch.autograd.Function):
    """Output and input gradient of a layer whose weight is not trained, and not kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, layer: QuantizedLinear | QuantizedConv2d) -> Tensor:
        ctx.layer, ctx.shape = layer, hidden.shape
        return layer.output(hidden, layer.unpacked(hidden.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (gradient,) = gradients
        layer = ctx.layer
        return layer.input_gradient(gradient, layer.unpacked(gradient.dtype), ctx.shape), None


_QUANTIZED: dict[type, type[nn.Module]] = {nn.Linear: QuantizedLinear, nn.Conv2d: QuantizedConv2d}
