"""Strengths of PEFT's adapters where a captured graph reads them, so that a change of strength needs no new graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer as LoraTunerLayer
from torch import Tensor, nn


def active_adapters(module: nn.Module) -> list[tuple[LoraTunerLayer, str]]:
    """Each layer with each adapter that takes part in its result, in the order in which they are added."""
    return [
        (layer, name)
        for layer in module.modules()
        if isinstance(layer, LoraTunerLayer) and not layer.disable_adapters
        for name in layer.active_adapters
        if name in layer.lora_A
    ]


class Scalings:
    """The strengths of a module's active adapters, in one tensor. The module must have some parameter."""

    def __init__(self, module: nn.Module) -> None:
        self._adapters = active_adapters(module)
        self._values = torch.empty(len(self._adapters), device=next(module.parameters()).device)
        self.refresh()

    def refresh(self) -> None:
        """Read them anew from PEFT's layers."""
        self._values.copy_(torch.tensor([layer.scaling[name] for layer, name in self._adapters]))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the layers multiply by the tensor in place of PEFT's numbers."""
        numbers = [layer.scaling[name] for layer, name in self._adapters]
        try:
            for (layer, name), value in zip(self._adapters, self._values, strict=True):
                layer.scaling[name] = _Factor(value)
            yield
        finally:
            for (layer, name), number in zip(self._adapters, numbers, strict=True):
                layer.scaling[name] = number


class _Factor:
    """A 0-d float32 tensor that other tensors are multiplied by as if it was a number.

    As a tensor it would be rounded to a 16-bit format first, which a number is not.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value

    def __rmul__(self, other: Any) -> Tensor:
        return (other.float() * self._value).to(other.dtype)
