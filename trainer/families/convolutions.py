"""A frozen model's convolutions, as a device computes them soonest.

Those with many weights over few pixels are one matrix product on a CPU. The deep levels of a UNet have kernels of 15 to
120 MB over 2x2 to 16x16 pixels; oneDNN and torch's own code rearrange such a kernel in each call, which takes up to
five times as long as the product: docs/benchmarks.md, "Training". Others are laid out so that nothing is rearranged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.frozen_layers import FrozenConv2d

MIN_WEIGHTS = 3_500_000
"""Smaller kernels stay in the cache while they are rearranged: there the libraries' convolutions are as fast."""
MIN_WEIGHTS_PER_PIXEL = 40_000
"""For each pixel of the output, over the batch; with fewer the arithmetic counts for more than the kernel's memory."""


def use_products_on_cpu(module: nn.Module) -> None:
    """Let a frozen model's large convolutions be products where that is faster; they are torch's own elsewhere."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d and layer.weight.numel() >= MIN_WEIGHTS and _can_be_product(layer):
            layer.__class__ = LargeConv2d


def lay_kernels_out(module: nn.Module) -> None:
    """Have the kernels of plain, frozen convolutions lie in memory as they are read: channels side by side.

    Pictures come out so as well (``channels_last``), and go on like this from layer to layer.
    """
    for layer in module.modules():
        if not isinstance(layer, nn.Conv2d) or type(layer) not in (nn.Conv2d, FrozenConv2d):
            continue
        if max(layer.kernel_size) > 1 and not layer.weight.requires_grad:
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)


class LargeConv2d(FrozenConv2d):
    """A frozen ``nn.Conv2d`` that gathers what lies under its kernel and multiplies, where pixels are few on a CPU."""

    def output(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Several pictures are one product, which reads the kernel once. Rows lie as such: transposed, few are slow."""
        if not self._is_product(hidden, hidden.shape):
            return super().output(hidden, weight)
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        kernel, gathered = weight.flatten(1), functional.unfold(hidden, *self._window())  # (B, C*k*k, P)
        output = hidden.new_empty(len(hidden), self.out_channels, *self._size(hidden.shape))
        if len(hidden) != 1:
            rows = functional.linear(gathered.transpose(1, 2).contiguous(), kernel, bias)
            output.flatten(2).copy_(rows.transpose(1, 2))
        elif bias is None:
            torch.mm(kernel, gathered[0], out=output[0].flatten(1))
        else:
            torch.addmm(bias[:, None], kernel, gathered[0], out=output[0].flatten(1))
        return output

    def input_gradient(self, gradient: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        if not self._is_product(gradient, shape):
            return super().input_gradient(gradient, weight, shape)
        rows = gradient.flatten(2).transpose(1, 2).contiguous() @ weight.flatten(1)  # (B, P, C*k*k)
        exact = rows.transpose(1, 2).float() if rows.itemsize < 4 else rows.transpose(1, 2)
        return functional.fold(exact, shape[2:], *self._window()).to(gradient.dtype)

    def _is_product(self, tensor: Tensor, shape: torch.Size) -> bool:
        """Whether an input of ``shape`` is multiplied on the tensor's device."""
        if not tensor.is_cpu or len(shape) != 4:  # a single picture may come without a batch
            return False
        height, width = self._size(shape)
        return self.weight.numel() >= shape[0] * height * width * MIN_WEIGHTS_PER_PIXEL

    def _window(self) -> tuple[Any, Any, Any, Any]:
        """Size, dilation, padding and stride, as ``unfold`` takes them."""
        return self.kernel_size, self.dilation, self.padding, self.stride

    def _size(self, shape: torch.Size) -> tuple[int, int]:
        """Height and width of the output for an input of ``shape``."""
        height, width = (self._outputs(shape, side) for side in (0, 1))
        return height, width

    def _outputs(self, shape: torch.Size, side: int) -> int:
        """Pixels of the output along a side."""
        assert not isinstance(self.padding, str)
        reach = self.dilation[side] * (self.kernel_size[side] - 1) + 1
        return (shape[2 + side] + 2 * self.padding[side] - reach) // self.stride[side] + 1


def _can_be_product(layer: nn.Conv2d) -> bool:
    trained = any(parameter.requires_grad for parameter in layer.parameters())
    return not trained and layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
