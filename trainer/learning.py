"""Everything that changes while a LoRA is trained: what the optimizer moves, and what a checkpoint holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import TrainSettings
from trainer.devices import seeded_generator
from trainer.ema import Ema
from trainer.errors import UserError
from trainer.optimizers import ScheduleFree, averaged, class_path, effective_learning_rate, make_optimizer
from trainer.parameter_groups import ParameterGroup, learning_groups
from trainer.schedulers import learning_rate_factor, set_learning_rate
from trainer.weight_format import FORMATS, restore_state_formats, step_rounded, use_format


class Learning:
    """Parameters, optimizer, loss scaler and running mean of one run.

    Attributes:
        step: optimizer steps done.
        skipped: updates left out in a row, up to now, because a gradient was not finite.
        learning_rate: the latest step's, of the first group, as the weights felt it.
        other_learning_rates: those of groups with another rate, by their names.
        layers_scaled: how many layers the latest step's norm limit has shortened; None without a limit.
    """

    def __init__(
        self,
        groups: list[ParameterGroup],
        settings: TrainSettings,
        max_steps: int,
        *,
        scaled: bool,
        limit_norms: Callable[[], Tensor] | None = None,
        allowed_optimizers: Sequence[str] = (),
    ) -> None:
        """Begin at step 0.

        Args:
            groups: what learns, and how fast; those with a rate of 0 are kept, and saved, as they are.
            settings: how.
            max_steps: steps of the run, for the learning rate's schedule.
            scaled: multiply losses up, as the small gradients of float16 need it; done for LoRAs in float16 anyhow.
            limit_norms: called after each update; shortens layers and returns how many, a scalar on the device.
            allowed_optimizers: classes that ``train.optimizer_class`` may name.
        """
        self._made_by = {
            "optimizer": class_path(settings),
            "arguments": json.dumps(settings.optimizer_args, sort_keys=True, default=str),
        }
        self._parameters = [parameter for group in groups for parameter in group.parameters]
        self._settings = settings
        self._format = FORMATS[settings.lora_precision]
        use_format([parameter for group in groups for parameter in group.parameters], self._format)
        moving = learning_groups(groups)
        self._moving = [parameter for group in moving for parameter in group.parameters]
        self._optimizer = make_optimizer(moving, settings, allowed_optimizers)
        if limit_norms is not None and isinstance(self._optimizer, ScheduleFree):
            message = "lora.max_norm: it would change weights that a schedule-free optimizer averages."
            raise UserError("lora.max_norm", message, "Leave it empty, or use adamw.", "lora.max_norm")
        self._base_rates = [group["lr"] for group in self._optimizer.param_groups]
        self._factor = learning_rate_factor(settings, max_steps)
        scaled = scaled or self._format == torch.float16
        self._scaler = torch.amp.GradScaler(self._parameters[0].device.type, enabled=scaled)
        self._ema = Ema(self._parameters, settings.ema) if settings.ema is not None else None
        self._limit = settings.max_grad_norm or math.inf
        self._limit_norms = limit_norms
        self.step = 0
        self.skipped = 0
        self.learning_rate = 0.0
        self.other_learning_rates: dict[str, float] = {}
        self._others = {
            group.name: number for number, group in enumerate(moving) if group.learning_rate != moving[0].learning_rate
        }
        self.layers_scaled: Tensor | None = None

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to those of the step."""
        self._scaler.scale(loss).backward()

    def clip_gradients(self) -> Tensor:
        """Shorten the step's gradient to ``max_grad_norm``; returns its length before, a scalar on the device."""
        self._scaler.unscale_(self._optimizer)
        return nn.utils.clip_grad_norm_(self._moving, self._limit)

    def update(self, grad_norm: float) -> None:
        """Change the weights by the step's gradients, unless one is not finite, and forget the gradients."""
        set_learning_rate(self._optimizer, self._base_rates, self._factor(self.step))
        self.learning_rate = effective_learning_rate(self._optimizer)
        self.other_learning_rates = {
            name: effective_learning_rate(self._optimizer, number) for name, number in self._others.items()
        }
        self.step += 1
        if math.isfinite(grad_norm):
            self._step_optimizer()
            self.skipped = 0
            if self._limit_norms is not None:
                self.layers_scaled = self._limit_norms()
            if self._ema is not None:
                self._ema.update(self.step)
        else:
            self.skipped += 1
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def _step_optimizer(self) -> None:
        if self._format == torch.float32:
            self._scaler.step(self._optimizer)
            return
        device = self._parameters[0].device
        chance = seeded_generator(self._settings.seed, self.step, "rounding", device=device)
        step_rounded(self._optimizer, self._format, chance, at_once=self._settings.optimizer == "custom")

    @contextmanager
    def result(self) -> Iterator[None]:
        """Inside, the parameters are the ones to save and to look at: the running mean where there is one."""
        if self._ema is None:
            with averaged(self._optimizer, self._parameters):
                yield
        else:
            with self._ema.applied():
                yield

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint: copies on the CPU, which further steps do not change.

        The frozen parameters too, as what they were filled from need not be there any more.
        """
        state = {
            "step": self.step,
            "skipped": self.skipped,
            "parameters": [parameter.detach() for parameter in self._parameters],
            "made_by": self._made_by,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "ema": self._ema.state() if self._ema is not None else None,
        }
        return _copied(state)

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state. Raises ValueError or KeyError when it is of another kind of run."""
        for parameter, saved in zip(self._parameters, state["parameters"], strict=True):
            if parameter.shape != saved.shape:
                raise ValueError(f"a layer has size {tuple(parameter.shape)}, the checkpoint has {tuple(saved.shape)}")
            if parameter.dtype != saved.dtype:
                formats = {dtype: name for name, dtype in FORMATS.items()}
                raise ValueError(f"its LoRA was in {formats[saved.dtype]}, now it is in {formats[parameter.dtype]}")
            parameter.copy_(saved)
        self._check_maker(state["made_by"])
        self._optimizer.load_state_dict(state["optimizer"])
        restore_state_formats(self._optimizer, state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._ema is not None:
            self._ema.load_state(state["parameters"] if state["ema"] is None else state["ema"])
        self.step, self.skipped = state["step"], state["skipped"]

    def _check_maker(self, made_by: dict[str, str]) -> None:
        """An optimizer would take on another one's state, or its own with other arguments, without a word."""
        for what, before in made_by.items():
            if before != self._made_by[what]:
                raise ValueError(f"its {what} was {before}, now it is {self._made_by[what]}")

    def move(self, device: torch.device) -> None:
        """Bring optimizer and running mean to where the parameters now are."""
        for values in self._optimizer.state.values():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.ndim:  # the step count stays where the optimizer wants it
                    values[name] = value.to(device)
        if self._ema is not None:
            self._ema.to(device)


def _copied(value: Any) -> Any:
    """Nested lists and dictionaries with copies of their tensors, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(each) for each in value)
    return value
