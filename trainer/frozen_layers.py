"""Frozen layers that keep nothing for the backward pass: neither their input, which a frozen weight does not need, nor
the weight, which is taken anew.

PyTorch keeps the input of every convolution, also where its weight is not trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input


def format_of(tensor: Tensor) -> torch.dtype:
    """The number format of products with a tensor: autocast's, or its own."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def is_hooked(layer: nn.Module) -> bool:
    """Whether what a layer computes is not its class's alone: adapters of other kinds than LoRA add to it by hooks."""
    return bool(layer._forward_pre_hooks or layer._forward_hooks)


def is_pointwise(layer: Any) -> bool:
    """Whether a convolution is a product for each pixel: of size 1, with nothing between, around or apart."""
    return layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1 and tuple(layer.padding) == (0, 0)


class FrozenLayer(nn.Module):
    """A layer whose weight is not trained; mixed into the layer's own class, whose looks it keeps.

    Layers are turned into such by their ``__class__``, so that adapters and names stay as they are.
    """

    def __new__(cls, *sizes: Any, **options: Any) -> Any:
        """A layer made anew by this class is a plain one: PEFT makes the factors of a layer by the layer's class."""
        if not sizes and not options:  # copied, with its weight
            return super().__new__(cls)
        plain = nn.Linear if issubclass(cls, nn.Linear) else nn.Conv2d
        return plain(*sizes, **options)

    def weight_in(self, dtype: torch.dtype) -> Tensor:
        """The weight in a number format. What comes of it is used at once: it may be overwritten later."""
        raise NotImplementedError

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output, in the format of the input or of autocast."""
        return _Frozen.apply(hidden.to(format_of(hidden)), self)

    def output(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """What the layer's class computes."""
        own: Any = self.bias
        bias = None if own is None else own.to(hidden.dtype)
        if isinstance(self, nn.Conv2d):
            return self._conv_forward(hidden, weight, bias)
        return functional.linear(hidden, weight, bias)

    def input_gradient(self, gradient: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of the input of ``shape`` for that of the output."""
        if isinstance(self, nn.Conv2d):
            sizes: Any = (self.stride, self.padding, self.dilation, self.groups)
            return conv2d_input(shape, weight, gradient, *sizes)
        return gradient @ weight


class FrozenConv2d(FrozenLayer, nn.Conv2d):
    """A frozen convolution with a plain weight."""

    def weight_in(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype)


def forget_inputs(denoiser: nn.Module) -> None:
    """Let the frozen convolutions of a model, adapters' aside, keep their inputs no more."""
    for layer in denoiser.modules():
        if type(layer) is nn.Conv2d and not layer.weight.requires_grad:
            layer.__class__ = FrozenConv2d


class _Frozen(torch.autograd.Function):
    """Output and input gradient of a frozen layer."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, layer: FrozenLayer) -> Tensor:
        ctx.layer, ctx.shape = layer, hidden.shape
        return layer.output(hidden, layer.weight_in(hidden.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (gradient,) = gradients
        layer = ctx.layer
        return layer.input_gradient(gradient, layer.weight_in(gradient.dtype), ctx.shape), None
