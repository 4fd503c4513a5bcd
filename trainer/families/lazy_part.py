"""A part of a model that is loaded when it is first used: what is asked of it before then waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class LazyPart(Generic[M]):
    """A frozen module and its settings, which are known from the start.

    Attributes:
        config: the settings, as the module's library keeps them.
        dtype: its number format.
        device: where it is, or will be.
    """

    def __init__(self, config: Any, load: Callable[[], M], *, dtype: torch.dtype, device: torch.device) -> None:
        """``load`` makes the module, in ``dtype``, and is called when it is needed."""
        self.config, self.dtype, self.device = config, dtype, device
        self._load = load
        self._module: M | None = None
        self._waiting: dict[str, Callable[[M], object]] = {}

    @property
    def module(self) -> M:
        """The module, loaded now where it is not yet. Raises UserError when it is broken."""
        if self._module is None:
            with torch.random.fork_rng(devices=[]):  # a step's draws are the same whether or not this falls into it
                module = self._load().requires_grad_(False).eval().to(self.device)
            for change in self._waiting.values():
                change(module)
            self._module = module
        return self._module

    @property
    def loaded(self) -> list[M]:
        """The module if it is loaded, else nothing."""
        return [] if self._module is None else [self._module]

    def release(self) -> None:
        """Let the module go, which is loaded anew when it is used again: changes of its weights are lost."""
        self._module = None

    def move(self, device: torch.device | str) -> None:
        """To a device."""
        self.device = torch.device(device)
        for module in self.loaded:
            module.to(self.device)

    def let(self, what: str, change: Callable[[M], object]) -> None:
        """Have this done to the module: now, or when it is loaded, then with the last ``change`` of each ``what``."""
        self._waiting[what] = change
        for module in self.loaded:
            change(module)
