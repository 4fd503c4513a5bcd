"""A frozen model's convolutions, as a device computes them soonest.

Those with many weights over few pixels are one matrix product on a CPU. The deep levels of a UNet have kernels of 30 to
120 MB over 2x2 to 16x16 pixels; oneDNN and torch's own code rearrange such a kernel in each call, which takes up to
five times as long as the product: docs/benchmarks.md, "Training". Others are laid out so that nothing is rearranged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.frozen_layers import FrozenConv2d

MIN_WEIGHTS = 7_000_000
"""Smaller kernels stay in the cache while they are rearranged: there the libraries' convolutions are as fast."""
MAX_PIXELS = 256
"""Of the output, over the batch; with more of them the arithmetic counts for more than the kernel's memory."""


def use_products_on_cpu(module: nn.Module) -> None:
    """Let a frozen model's large convolutions be products where that is faster; they are torch's own elsewhere."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d and layer.groups == 1 and layer.weight.numel() >= MIN_WEIGHTS:
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


class LargeConv2d(nn.Conv2d):
    """``nn.Conv2d`` that gathers what lies under the kernel and multiplies, where there are few pixels on a CPU."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        height, width = (self._outputs(input, side) for side in (0, 1))
        if not input.is_cpu or weight.requires_grad or len(input) * height * width > MAX_PIXELS:
            return super()._conv_forward(input, weight, bias)
        assert not isinstance(self.padding, str)
        gathered = functional.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)  # (B, C*k*k, P)
        rows = functional.linear(gathered.transpose(1, 2), weight.flatten(1), bias)  # (B, P, out)
        return rows.transpose(1, 2).unflatten(2, (height, width))

    def _outputs(self, input: Tensor, side: int) -> int:
        """Pixels of the output along a side."""
        assert not isinstance(self.padding, str)
        reach = self.dilation[side] * (self.kernel_size[side] - 1) + 1
        return (input.shape[2 + side] + 2 * self.padding[side] - reach) // self.stride[side] + 1
