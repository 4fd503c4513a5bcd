"""What the kernels compute, as differentiable functions of tensors."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from trainer.fused import kernels

ROWS, COLUMNS = 64, 64
"""Pixels and channels of a block: 128 bytes of each pixel in 16 bits. All widths of Stable Diffusion are multiples."""
BLOCKS_AT_ONCE = 64
_GATED_AT_ONCE, _ADDED_AT_ONCE, _NORMALISED_AT_ONCE = 1024, 1024, 4096


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, *, activate: bool) -> Tensor:
    """Group normalisation (Wu and He 2018, 1803.08494) of (B, C, h, w), and SiLU of it where ``activate``.

    Computed in float32, given in the format of ``x``, in ``channels_last``; differentiable in ``x`` alone.
    """
    return _GroupNorm.apply(x, groups, weight, bias, eps, activate)


def gated(both: Tensor) -> Tensor:
    """(..., 2 W) to (..., W): the first half times GELU of the second (GEGLU; Shazeer 2020, 2002.05202)."""
    return _Gated.apply(both)


def added_and_normalised(x: Tensor, more: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The sum of two (..., W), and its layer normalisation; differentiable in both terms."""
    total, y = _AddAndNormalise.apply(x, more, weight, bias, eps)
    return total, y


def added_with_bias(x: Tensor, more: Tensor, bias: Tensor) -> Tensor:
    """The sum of two (B, C, h, w) and of (C,), in ``channels_last``; differentiable in the first two."""
    return _AddWithBias.apply(x, more, bias)


def try_all(device: torch.device, dtype: torch.dtype) -> None:
    """Compute all of them in a format, forward and backward. Raises whatever is raised where one cannot be compiled."""
    x = torch.ones(1, 32, 2, 2, device=device, dtype=dtype, requires_grad=True)
    weight = torch.ones(32, device=device, dtype=dtype)
    picture = added_with_bias(group_norm(x, 32, weight, weight, 1e-5, activate=True), x, weight)
    tokens = picture.flatten(2).transpose(1, 2)
    total, normed = added_and_normalised(tokens, tokens, weight, weight, 1e-5)
    (total.sum() + gated(normed).sum()).backward()


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, activate: bool) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        count, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        width, blocks = channels // groups, triton.cdiv(pixels, ROWS)
        grid = (blocks, triton.cdiv(channels, COLUMNS), count)
        means, squares = x.new_empty((2, count, blocks, channels), dtype=torch.float32)
        mean, scale = x.new_empty((2, count, groups), dtype=torch.float32)
        kernels.moments[grid](x, means, squares, pixels, channels, ROWS=ROWS, COLUMNS=COLUMNS)
        kernels.join_moments[(groups, count)](
            means, squares, mean, scale, pixels, channels, blocks, width, eps,
            ROWS=ROWS, AT_ONCE=BLOCKS_AT_ONCE, WIDTH=triton.next_power_of_2(width),
        )  # fmt: skip
        y = torch.empty_like(x)
        kernels.normalise[grid](
            x, y, mean, scale, weight, bias, pixels, channels, groups, width,
            ACTIVATE=activate, ROWS=ROWS, COLUMNS=COLUMNS,
        )  # fmt: skip
        ctx.save_for_backward(x, mean, scale, weight, bias)
        ctx.groups, ctx.activate = groups, activate
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        x, mean, scale, weight, bias = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        count, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        groups, width, blocks = ctx.groups, channels // ctx.groups, triton.cdiv(pixels, ROWS)
        grid = (blocks, triton.cdiv(channels, COLUMNS), count)
        plain, along = x.new_empty((2, count, blocks, channels), dtype=torch.float32)
        mean_plain, mean_along = x.new_empty((2, count, groups), dtype=torch.float32)
        kernels.gradient_sums[grid](
            x, gradient, mean, scale, weight, bias, plain, along, pixels, channels, groups, width,
            ACTIVATE=ctx.activate, ROWS=ROWS, COLUMNS=COLUMNS,
        )  # fmt: skip
        kernels.join_gradient_sums[(groups, count)](
            plain, along, mean_plain, mean_along, pixels, channels, blocks, width,
            AT_ONCE=BLOCKS_AT_ONCE, WIDTH=triton.next_power_of_2(width),
        )  # fmt: skip
        to = torch.empty_like(x)
        kernels.normalise_gradient[grid](
            x, gradient, to, mean, scale, weight, bias, mean_plain, mean_along, pixels, channels, groups, width,
            ACTIVATE=ctx.activate, ROWS=ROWS, COLUMNS=COLUMNS,
        )  # fmt: skip
        return to, None, None, None, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        both = both.contiguous()
        width = both.shape[-1] // 2
        to = both.new_empty((*both.shape[:-1], width))
        grid = (to.numel() // width, triton.cdiv(width, _GATED_AT_ONCE))
        kernels.gate[grid](both, to, width, COLUMNS=_GATED_AT_ONCE)
        ctx.save_for_backward(both)
        return to

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (both,) = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        width, to = gradient.shape[-1], torch.empty_like(both)
        grid = (gradient.numel() // width, triton.cdiv(width, _GATED_AT_ONCE))
        kernels.gate_gradient[grid](both, gradient, to, width, COLUMNS=_GATED_AT_ONCE)
        return to


class _AddAndNormalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, more: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        x, more = x.contiguous(), more.contiguous()
        width = x.shape[-1]
        rows = x.numel() // width
        total, y = torch.empty_like(x), torch.empty_like(x)
        mean, scale = x.new_empty((2, rows), dtype=torch.float32)
        sizes = _rows_at_once(width)
        kernels.add_and_normalise[(triton.cdiv(rows, sizes["ROWS"]),)](
            x, more, total, y, mean, scale, weight, bias, rows, width, eps, **sizes
        )
        ctx.save_for_backward(total, mean, scale, weight)
        return total, y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        total, mean, scale, weight = ctx.saved_tensors
        of_total, of_y = (each.contiguous() for each in gradients)
        width = total.shape[-1]
        rows, sizes, to = total.numel() // width, _rows_at_once(width), torch.empty_like(total)
        kernels.add_and_normalise_gradient[(triton.cdiv(rows, sizes["ROWS"]),)](
            total, of_total, of_y, to, mean, scale, weight, rows, width, **sizes
        )
        return to, to, None, None, None


class _AddWithBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, more: Tensor, bias: Tensor) -> Tensor:
        x, more = (each.contiguous(memory_format=torch.channels_last) for each in (x, more))
        to, count = torch.empty_like(x), x.numel()
        grid = (triton.cdiv(count, _ADDED_AT_ONCE),)
        kernels.add_with_bias[grid](x, more, bias, to, count, x.shape[1], COUNT=_ADDED_AT_ONCE)
        return to

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None]:
        return gradients[0], gradients[0], None


def _rows_at_once(width: int) -> dict[str, int]:
    """Sizes of a block of whole rows."""
    whole = triton.next_power_of_2(width)
    return {"ROWS": max(1, _NORMALISED_AT_ONCE // whole), "WIDTH": whole}
