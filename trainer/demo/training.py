"""What the builder's three trainings share: seeds, learning-rate shape, weight average, and state on disk."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trainer.files import atomic_path

WARMUP_STEPS = 50
DECAY_SHARE = 0.35
"""The last share of a training, over which the learning rate falls to `FLOOR` along half a cosine."""
FLOOR = 0.02


def step_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """A generator for one step's draws, from its number alone: a resumed training draws what an unbroken one does."""
    key = seed
    for byte in f"{stage}/{step}".encode():
        key = (key * 1000003 ^ byte) & 0x7FFFFFFFFFFFFFFF
    return torch.Generator().manual_seed(key)


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Linear warm-up, a plateau at `peak`, then half a cosine down to `FLOOR * peak` over the last `DECAY_SHARE`."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    into_decay = (step / steps - (1 - DECAY_SHARE)) / DECAY_SHARE
    fall = 1.0 if into_decay <= 0 else FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, into_decay)))
    return peak * warm * fall


class Ema:
    """Exponential moving average of parameters, young at first: decay is at most (step + 1) / (step + 10)."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.averages = [parameter.detach().clone() for parameter in self.parameters]

    def update(self, step: int) -> None:
        """Moves the averages towards the parameters after optimizer step number `step` (from 0)."""
        decay = min(self.decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(self.averages, [parameter.detach() for parameter in self.parameters], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the parameters hold the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.data, self.averages[index] = self.averages[index], parameter.data


class Run:
    """One resumable training: modules, optimizer, weight average, and the file that holds them all.

    Attributes:
        step: how many optimizer steps are done.
    """

    def __init__(
        self, path: Path, modules: Mapping[str, torch.nn.Module], rate: float, weight_decay: float, ema_decay: float
    ) -> None:
        """Continues from the file at `path`, where there is one."""
        self.path = path
        self.modules = modules
        self.rate = rate
        self.parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )
        self.ema = Ema(self.parameters, ema_decay)
        self.step = 0
        saved = load_state(path)
        if saved is None:
            return
        for name, module in modules.items():
            module.load_state_dict(saved[name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.ema.averages = [average.to(p.device) for average, p in zip(saved["ema"], self.parameters, strict=True)]
        self.step = saved["step"]

    def advance(self, loss: torch.Tensor, steps: int) -> None:
        """One optimizer step of `steps` in all: backward, clip the gradient's norm to 1.0, update, average."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.rate, self.step, steps)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.ema.update(self.step)
        self.step += 1

    def save(self) -> None:
        """Writes the file."""
        state = {name: module.state_dict() for name, module in self.modules.items()}
        progress = {"optimizer": self.optimizer.state_dict(), "ema": self.ema.averages, "step": self.step}
        save_state(self.path, state | progress)

    def finish(self) -> None:
        """Leaves the averages in the modules."""
        for parameter, average in zip(self.parameters, self.ema.averages, strict=True):
            parameter.data.copy_(average)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes `state` so that `path` holds either the old or the new one, never half of it."""
    with atomic_path(path) as temporary:
        torch.save(dict(state), temporary)


def load_state(path: Path) -> dict[str, Any] | None:
    """The state last saved at `path`, or None before the first save."""
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None
