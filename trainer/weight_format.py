"""LoRA weights and optimizer state in 16 bits: half the memory, with an update that is right on average.

A step changes a weight by less than 16 bits tell apart: rounded to the nearest number, it would stay where it is for
ever. Rounded up or down by chance, in proportion to what is nearer, it moves as it should on average (Gupta et al.
2015, 1502.02551, section 3; for bfloat16 training Zamirai et al. 2020, 2010.06192).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config_training import LoraPrecision

FORMATS: dict[LoraPrecision, torch.dtype] = {
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
CHUNK_NUMBERS = 1 << 22
"""Numbers that are in float32 at once while a step is made: 16 MiB, times weights and states."""

_DIGITS = {torch.bfloat16: 8, torch.float16: 11}
_LOWEST_SPACING = {torch.bfloat16: -126, torch.float16: -24}  # exponents of two; bfloat16's own goes on to -133


def use_format(parameters: Sequence[nn.Parameter], dtype: torch.dtype) -> None:
    """Bring parameters into a format, rounded to nearest; their gradients are added up in float32 all the same."""
    for parameter in parameters:
        if dtype != torch.float32:
            parameter.data = parameter.data.to(dtype)
            parameter.grad_dtype = torch.float32


def state_format(dtype: torch.dtype) -> torch.dtype:
    """The format of the optimizer's averages beside weights in ``dtype``.

    bfloat16 for float16 too: squares of gradients are below float16's smallest number, and to divide by 0 is worse
    than to know fewer digits.
    """
    return torch.bfloat16 if dtype == torch.float16 else dtype


def round_stochastically(values: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """float32 values in bfloat16 or float16: one of the two nearest, so that the mean over draws is the value.

    What the format holds stays as it is, and so do infinity and NaN. The generator is on the values' device.
    """
    exponents = ((values.view(torch.int32) >> 23) & 255) - 126  # as frexp's, which not every device has
    spacing = (exponents - _DIGITS[dtype]).clamp(_LOWEST_SPACING[dtype], 126)
    scaled = values * _power_of_two(-spacing)
    lower = scaled.floor()
    share = torch.rand(values.shape, generator=generator, device=values.device)
    rounded = (lower + (share < scaled - lower)) * _power_of_two(spacing)
    return torch.where(values.isfinite(), rounded, values).to(dtype)


def _power_of_two(exponents: Tensor) -> Tensor:
    """2 to exponents within -126 and 127, exactly: the bits of a float32 without fraction."""
    return ((exponents.int() + 127) << 23).view(torch.float32)


@torch.no_grad()
def step_rounded(
    optimizer: torch.optim.Optimizer, dtype: torch.dtype, generator: torch.Generator, *, at_once: bool = False
) -> None:
    """Let an optimizer make its step in float32 on parameters, and states of their shape, that are kept in 16 bits.

    A chunk of parameters after the other is brought to float32, stepped and rounded back by chance, so that there is
    never a float32 copy of all. The gradients are used up.

    Args:
        optimizer: any that changes each parameter by its own gradient and state.
        dtype: of the parameters.
        generator: what is rounded how depends on nothing else; on the parameters' device.
        at_once: make one chunk of all, for optimizers of which nobody knows what they share between parameters.
    """
    members = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = {parameter: parameter.grad for parameter in members if parameter.grad is not None}
    for parameter in gradients:
        parameter.grad = None
    for chunk in [list(gradients)] if at_once else _chunks(list(gradients), CHUNK_NUMBERS):
        for parameter in chunk:
            parameter.data = parameter.data.float()
            parameter.grad = gradients.pop(parameter)
            for name, value in _averages(optimizer.state[parameter], parameter):
                optimizer.state[parameter][name] = value.float()
        optimizer.step()
        for parameter in chunk:
            parameter.grad = None
            for name, value in _averages(optimizer.state[parameter], parameter):
                rounded = round_stochastically(value, state_format(dtype), generator)
                optimizer.state[parameter][name] = rounded
            parameter.data = round_stochastically(parameter.data, dtype, generator)


def restore_state_formats(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Give loaded states the format they were saved in; torch has given them their parameter's."""
    members = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(members):
        for name, value in saved["state"].get(number, {}).items():
            now = optimizer.state[parameter].get(name)
            if isinstance(value, Tensor) and isinstance(now, Tensor) and now.dtype != value.dtype:
                optimizer.state[parameter][name] = value.to(now.device, copy=True)


def _averages(state: dict[str, Any], parameter: Tensor) -> Iterator[tuple[str, Tensor]]:
    """An optimizer's states with a number for each weight: not counts, tables, or what is in 8 bits already."""
    for name, value in list(state.items()):
        if isinstance(value, Tensor) and value.is_floating_point() and value.shape == parameter.shape:
            yield name, value


def _chunks(parameters: Sequence[nn.Parameter], numbers: int) -> Iterator[list[nn.Parameter]]:
    """Neighbours with no more than so many numbers together; a larger parameter is one of its own."""
    chunk: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if chunk and size + parameter.numel() > numbers:
            yield chunk
            chunk, size = [], 0
        chunk.append(parameter)
        size += parameter.numel()
    if chunk:
        yield chunk
