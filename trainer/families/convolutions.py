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

from trainer.frozen_layers import FrozenConv2d, FrozenLayer

MIN_WEIGHTS = 3_500_000
"""Smaller kernels stay in the cache while they are rearranged: there the libraries' convolutions are as fast."""
MIN_WEIGHTS_PER_PIXEL = 40_000
"""For each pixel of the output, over the batch; with fewer the arithmetic counts for more than the kernel's memory."""


def use_products_on_cpu(module: nn.Module) -> None:
    """Let a frozen model's large convolutions be products where that is faster; they are torch's own elsewhere."""
    for layer in module.modules():
        if type(layer) is not nn.Conv2d or layer.weight.requires_grad:
            continue
        if layer.groups == 1 and layer.padding_mode == "zeros" and layer.weight.numel() >= MIN_WEIGHTS:
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


class LargeConv2d(FrozenLayer, nn.Conv2d):
    """A frozen ``nn.Conv2d`` that gathers what lies under its kernel and multiplies, where pixels are few on a CPU."""

    def weight_in(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        """See ``nn.Conv2d``."""
        pixels = len(hidden) * self._outputs(hidden, 0) * self._outputs(hidden, 1)
        if hidden.is_cpu and self.weight.numel() >= pixels * MIN_WEIGHTS_PER_PIXEL:
            return super().forward(hidden)
        return nn.Conv2d.forward(self, hidden)

    def output(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Several pictures are one product, which reads the kernel once. Rows lie as such: transposed, few are slow."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        kernel, gathered = weight.flatten(1), functional.unfold(hidden, *self._window())  # (B, C*k*k, P)
        if len(hidden) > 1:
            output = functional.linear(gathered.transpose(1, 2).contiguous(), kernel, bias).transpose(1, 2)
        elif bias is None:
            output = kernel @ gathered
        else:
            output = torch.addmm(bias[:, None], kernel, gathered[0])[None]
        return output.unflatten(2, (self._outputs(hidden, 0), self._outputs(hidden, 1)))

    def input_gradient(self, gradient: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        rows = gradient.flatten(2).transpose(1, 2).contiguous() @ weight.flatten(1)  # (B, P, C*k*k)
        return functional.fold(rows.transpose(1, 2), shape[2:], *self._window())

    def _window(self) -> tuple[Any, Any, Any, Any]:
        """Size, dilation, padding and stride, as ``unfold`` takes them."""
        return self.kernel_size, self.dilation, self.padding, self.stride

    def _outputs(self, hidden: Tensor, side: int) -> int:
        """Pixels of the output along a side."""
        assert not isinstance(self.padding, str)
        reach = self.dilation[side] * (self.kernel_size[side] - 1) + 1
        return (hidden.shape[2 + side] + 2 * self.padding[side] - reach) // self.stride[side] + 1
