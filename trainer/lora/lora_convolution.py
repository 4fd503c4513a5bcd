"""A convolution's LoRA: its down part is a convolution with the same kernel size, its up part a product for each pixel.

PEFT's up part is a 1x1 convolution with a picture of its own, which is then scaled, and added. Here it is a product
that is scaled on its way, and added where the frozen layer's output lies.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Conv2d
from torch import Tensor, nn
from torch.nn import functional

from trainer.frozen_layers import format_of
from trainer.lora.lora_product import ADAPTER, exact_product, factors, is_plain
from trainer.lora.rounded import rounded
from trainer.pixels import as_picture, as_pixels


class ConvolutionProduct(torch.autograd.Function):
    """``W * x + b + scale B (A * x)`` for a frozen ``W``, where ``*`` convolves: differentiable in x, A and B.

    For pictures in ``channels_last``. Factors are cast to the frozen weight's format, or autocast's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: nn.Conv2d, down: Tensor, up: Tensor, scale: float) -> Tensor:
        """``x`` (B, in, h, w) to (B, out, H, W); ``down`` (rank, in, k, k) and ``up`` (out, rank, 1, 1)."""
        dtype = format_of(base.weight)
        x, weight = x.to(dtype), base.weight.to(dtype)
        first, second = (rounded(each, dtype).to(dtype) for each in (down, up))
        bias = None if base.bias is None else base.bias.to(dtype)
        sizes: Any = (base.stride, base.padding, base.dilation)
        output = _side_by_side(functional.conv2d(x, weight, bias, *sizes))
        hidden = _side_by_side(functional.conv2d(x, first, None, *sizes))  # (B, rank, H, W)
        _rows(output).addmm_(_rows(hidden), second.flatten(1).t(), alpha=scale)
        ctx.save_for_backward(x, weight, first, second, hidden)
        ctx.scale, ctx.sizes = scale, sizes
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """With ``beta=0`` a product is scaled on its way, and the tensor in front lends its shape alone."""
        x, weight, down, up, hidden = ctx.saved_tensors
        gradient, for_x = _side_by_side(gradients[0]), None
        rows, hidden_rows = _rows(gradient), _rows(hidden)
        through = torch.addmm(hidden_rows, rows, up.flatten(1), beta=0, alpha=ctx.scale)  # (B * H * W, rank)
        through = as_picture(through.view(len(hidden), -1, hidden.shape[1]), hidden.shape[2:])
        for_up = exact_product(rows.t(), hidden_rows).mul_(ctx.scale).view(up.shape)
        by_adapter, for_down = _gradients(through, x, down, ctx.sizes, of_weight=True)
        if ctx.needs_input_grad[0]:
            for_x = _gradients(gradient, x, weight, ctx.sizes, of_weight=False)[0].add_(by_adapter)
        return for_x, None, for_down.contiguous(), for_up, None  # as the factor itself lies


class LoraConvolution(Conv2d):
    """PEFT's convolution with LoRA, computed by ``ConvolutionProduct`` where channels lie side by side."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """See ``nn.Conv2d``; whatever ``ConvolutionProduct`` is not for is PEFT's."""
        if args or kwargs or not is_plain(self) or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x, *args, **kwargs)
        return ConvolutionProduct.apply(x, self.base_layer, *factors(self), self.scaling[ADAPTER])


def use_convolution_products(layer: nn.Module) -> None:
    """Let a convolution of PEFT's that has no dropout be computed by ``ConvolutionProduct``, if that can be."""
    base: Any = getattr(layer, "base_layer", None)
    if type(layer) is Conv2d and base.groups == 1 and base.padding_mode == "zeros":
        layer.__class__ = LoraConvolution


def _side_by_side(picture: Tensor) -> Tensor:
    return picture.contiguous(memory_format=torch.channels_last)


def _rows(picture: Tensor) -> Tensor:
    """(B, C, h, w) as (B * h * w, C), which is how it lies in memory: never a copy."""
    return as_pixels(picture).view(-1, picture.shape[1])


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor, sizes: Any, *, of_weight: bool) -> tuple[Tensor, Tensor]:
    """A convolution's gradients of its input, and of its weight where it is asked for."""
    wanted = [True, of_weight, False]
    backward = torch.ops.aten.convolution_backward.default
    for_x, for_weight, _ = backward(gradient, x, weight, None, *sizes, False, [0, 0], 1, wanted)
    return for_x, for_weight
