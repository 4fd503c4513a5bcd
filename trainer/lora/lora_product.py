"""A LoRA layer's output and gradients in as few matrix products as they need: three forward, five backward.

PEFT's own forward pass multiplies, adds, casts and looks up around them. Where a step waits for the processor (small
models on a CPU, nearly all on a fast GPU), that is what takes the time: here the scale is part of a product, sums are
made in place, and no number changes its format twice.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Conv2d, Linear
from torch import Tensor, nn
from torch.nn import functional

from trainer.frozen_layers import FrozenConv2d, format_of, is_hooked, is_pointwise
from trainer.graphs import is_capturing
from trainer.lora.rounded import rounded
from trainer.pixels import as_picture, as_pixels

ADAPTER = "default"
"""PEFT's name for what is trained."""


_PLAIN = (nn.Linear, nn.Conv2d, FrozenConv2d)
"""Layers whose weight is what it seems: the others, with packed ones, compute for themselves."""


class LoraProduct(torch.autograd.Function):
    """``x W' + b + scale (x A') B'`` for a frozen ``W``: differentiable in x, A and B.

    Factors are cast to the frozen weight's format, or autocast's, once; their gradients come in their own.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        """Rows of ``x`` (..., in) to (..., out); ``weight`` (out, in), ``down`` (rank, in) and ``up`` (out, rank).

        Each of the three may have ones behind, as those of 1x1 convolutions have.
        """
        dtype = format_of(weight)
        frozen, first, second = _matrix(weight, dtype), *(_matrix(rounded(each, dtype), dtype) for each in (down, up))
        rows = _in_format(x, dtype).reshape(-1, x.shape[-1])
        hidden = _scaled_product(rows, first.t(), scale)
        output = functional.linear(rows, frozen, None if bias is None else _in_format(bias, dtype))
        output.addmm_(hidden, second.t())
        ctx.save_for_backward(rows, frozen, first, second, hidden)
        ctx.scale, ctx.shapes = scale, (x.shape, down.shape, up.shape)
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """With ``beta=0`` a product is scaled on its way, and the tensor in front lends its shape alone."""
        rows, frozen, down, up, hidden = ctx.saved_tensors
        scale, (x_shape, down_shape, up_shape) = ctx.scale, ctx.shapes
        gradient = gradient.reshape(-1, gradient.shape[-1])
        through = torch.addmm(hidden, gradient, up, beta=0, alpha=scale)
        for_up = exact_product(gradient.t(), hidden).view(up_shape)
        for_down = exact_product(through.t(), rows).view(down_shape)
        for_x = torch.mm(gradient, frozen).addmm_(through, down).view(x_shape) if ctx.needs_input_grad[0] else None
        return for_x, None, None, for_down, for_up, None


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """``scale * left @ right``: with ``beta=0`` nothing is read of the sum's other term."""
    return torch.addmm(left.new_empty((len(left), right.shape[1])), left, right, beta=0, alpha=scale)


def exact_product(left: Tensor, right: Tensor) -> Tensor:
    """A factor's gradient: in float32 at once where a GPU sums in it anyway, else autograd would have to cast it."""
    if left.is_cuda and left.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right)


def _in_format(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Asked first: even a cast that does nothing takes microseconds, some thousand times in a step."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _matrix(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return _in_format(weight if weight.ndim == 2 else weight.flatten(1), dtype)


class SharedProduct(torch.autograd.Function):
    """What ``LoraProduct`` gives for several layers that read the same input, side by side: (..., sum of outs).

    The frozen products are one where their weights lie one behind the other in memory, and so are the down parts.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: tuple[float, ...], *tensors: Tensor) -> Tensor:
        """``tensors``: the frozen weights (out, in) of all layers, then their downs, then their ups."""
        count = len(scales)
        dtype = format_of(tensors[0])
        frozen = _joined([_in_format(each, dtype) for each in tensors[:count]])
        downs = _in_format(torch.cat([rounded(each, dtype) for each in tensors[count : 2 * count]]), dtype)
        ups = [_in_format(rounded(each, dtype), dtype) for each in tensors[2 * count :]]
        rows = _in_format(x, dtype).reshape(-1, x.shape[-1])
        ranks, widths = [up.shape[1] for up in ups], [len(up) for up in ups]
        if len(set(scales)) == 1:
            hidden = _scaled_product(rows, downs.t(), scales[0])
        else:
            hidden = torch.cat(
                [
                    _scaled_product(rows, each.t(), scale)
                    for each, scale in zip(downs.split(ranks), scales, strict=True)
                ],
                1,
            )
        output = functional.linear(rows, frozen)
        for part, each, up in zip(output.split(widths, 1), hidden.split(ranks, 1), ups, strict=True):
            part.addmm_(each, up.t())
        ctx.save_for_backward(rows, frozen, downs, hidden, *ups)
        ctx.scales, ctx.shape = scales, x.shape
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """See ``LoraProduct.backward``."""
        rows, frozen, downs, hidden, *ups = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        ranks, widths = [up.shape[1] for up in ups], [len(up) for up in ups]
        parts = list(zip(gradient.split(widths, 1), hidden.split(ranks, 1), ups, ctx.scales, strict=True))
        through = torch.cat([torch.addmm(h, g, up, beta=0, alpha=scale) for g, h, up, scale in parts], 1)
        for_ups = [exact_product(g.t(), h) for g, h, _, _ in parts]
        for_downs = exact_product(through.t(), rows).split(ranks)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = torch.mm(gradient, frozen).addmm_(through, downs).view(ctx.shape)
        return for_x, None, *[None] * len(ups), *for_downs, *for_ups


def join(weights: list[Tensor]) -> None:
    """Put frozen weights (out, in) one behind the other in memory, each where the former ends; their values stay.

    Raises RuntimeError where a graph is captured: it would put them there again, from where they were, each time.
    """
    if _in_line(weights):
        return
    if is_capturing():
        raise RuntimeError("weights that are used at once lie apart")
    joined = torch.cat([weight.detach() for weight in weights])
    for weight, part in zip(weights, joined.split([len(weight) for weight in weights]), strict=True):
        weight.data = part


def _in_line(weights: list[Tensor]) -> bool:
    storage, end = weights[0].untyped_storage()._cdata, weights[0].storage_offset()
    for weight in weights:
        if weight.untyped_storage()._cdata != storage or weight.storage_offset() != end or not weight.is_contiguous():
            return False
        end += weight.numel()
    return True


def _joined(weights: list[Tensor]) -> Tensor:
    """All rows, without a copy where ``join`` has been."""
    if not _in_line(weights):
        return torch.cat(weights)
    first = weights[0]
    return first.as_strided((sum(len(weight) for weight in weights), first.shape[1]), (first.shape[1], 1))


class LoraLinear(Linear):
    """PEFT's linear layer with LoRA, computed by ``LoraProduct``."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """See ``nn.Linear``; whatever ``LoraProduct`` is not for is PEFT's."""
        if args or kwargs or not is_plain(self):
            return super().forward(x, *args, **kwargs)
        return _product(self, x)


class LoraPointwise(Conv2d):
    """PEFT's 1x1 convolution with LoRA, computed by ``LoraProduct`` for each pixel."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """See ``nn.Conv2d``; whatever ``LoraProduct`` is not for is PEFT's."""
        if args or kwargs or not is_plain(self):
            return super().forward(x, *args, **kwargs)
        return as_picture(_product(self, as_pixels(x)), x.shape[2:])


def use_products(layer: nn.Module) -> None:
    """Let a layer of PEFT's that has no dropout be computed by ``LoraProduct``, if that can be."""
    if type(layer) is Linear:
        layer.__class__ = LoraLinear
    elif type(layer) is Conv2d and is_pointwise(layer.base_layer):
        layer.__class__ = LoraPointwise


def is_plain(layer: Linear | Conv2d) -> bool:
    """Whether the adapter is on, alone and of a fixed strength, and its layer a frozen one as torch makes it."""
    base: Any = layer.base_layer
    return (
        type(base) in _PLAIN
        and not layer.disable_adapters
        and not layer.merged
        and layer.active_adapters == [ADAPTER]
        and isinstance(layer.scaling[ADAPTER], float)
        and not base.weight.requires_grad
        and not is_hooked(base)
    )


def factors(layer: Linear | Conv2d) -> tuple[Tensor, Tensor]:
    """Down and up."""
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def _product(layer: Linear | Conv2d, x: Tensor) -> Tensor:
    base: Any = layer.base_layer
    return LoraProduct.apply(x, base.weight, base.bias, *factors(layer), layer.scaling[ADAPTER])
