"""A running mean of the LoRA's weights, which is often better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of parameters, in float32 whatever they are in.

    Young averages forget faster, ``min(decay, (1 + n) / (10 + n))`` after n updates, or the start would weigh on short
    runs (diffusers' EMAModel does the same).
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self._averages = [parameter.detach().float().clone() for parameter in parameters]

    def share_at(self, step: int) -> float:
        """How much the parameters count in the mean after optimizer step ``step``, counted from 1."""
        return 1 - min(self._decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def take_in(self, share: Tensor) -> None:
        """Move the averages by a share of the way to the parameters; a scalar on their device, which is not read."""
        shares = [share.float()] * len(self._averages)
        torch._foreach_lerp_(self._averages, [parameter.detach().float() for parameter in self._parameters], shares)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters hold their averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> list[Tensor]:
        """The averages, for a checkpoint."""
        return list(self._averages)

    def load_state(self, averages: list[Tensor]) -> None:
        """Go on from a checkpoint's averages."""
        for mine, saved in zip(self._averages, averages, strict=True):
            mine.copy_(saved)

    def to(self, device: torch.device) -> None:
        """Follow the parameters to another device."""
        self._averages = [average.to(device) for average in self._averages]

    def _swap(self) -> None:
        for index, parameter in enumerate(self._parameters):
            parameter.data, self._averages[index] = self._averages[index], parameter.data
