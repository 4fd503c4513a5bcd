"""Everything that changes while a LoRA is trained: what the optimizer moves, and what a checkpoint holds.

Of a step the host does ``advance``, and the device does ``backward`` and ``apply_gradients``. These two neither read a
number nor depend on one of Python's that changes from step to step, so that a graph can hold them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainer.config import TrainSettings
from trainer.devices import features_of, seeded_generator
from trainer.ema import Ema
from trainer.errors import UserError
from trainer.optimizers import (
    ScheduleFree,
    averaged,
    class_path,
    effective_learning_rate,
    leaves_out_on_device,
    make_optimizer,
    step_where,
)
from trainer.parameter_groups import ParameterGroup, learning_groups
from trainer.ranks import Ranks
from trainer.schedulers import learning_rate_factor, set_learning_rate
from trainer.weight_format import FORMATS, restore_state_formats, step_rounded, use_format

if TYPE_CHECKING:
    from trainer.gradient_sum import GradientSum


class Learning:
    """Parameters, optimizer, loss scaler and running mean of one run.

    Attributes:
        step: optimizer steps done.
        loss: the step's up to now, a scalar on the device.
        skipped: updates left out in a row because a gradient was not finite, as far as ``heard`` was told.
        learning_rate: the latest step's, of the first group, as the weights felt it.
        other_learning_rates: those of groups with another rate, by their names.
        decides_on_device: whether the device by itself leaves the weights as they are when a gradient is not finite;
            else ``apply_gradients`` waits for it.
        stays_in_place: keep gradients and weights where they lie, for graphs, rather than giving memory back.
        rate_share: all learning rates are this share of what the settings say.
    """

    def __init__(
        self,
        groups: list[ParameterGroup],
        settings: TrainSettings,
        max_steps: int,
        *,
        scaled: bool,
        limit_norms: Callable[[Tensor], Tensor] | None = None,
        allowed_optimizers: Sequence[str] = (),
    ) -> None:
        """Begin at step 0.

        Args:
            groups: what learns, and how fast; those with a rate of 0 are kept, and saved, as they are.
            settings: how.
            max_steps: steps of the run, for the learning rate's schedule.
            scaled: multiply losses up, as the small gradients of float16 need it; done for LoRAs in float16 anyhow.
            limit_norms: called after each update with whether it took place; shortens layers and returns how many.
                Both are scalars on the device.
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
        self._add_up: GradientSum | None = None
        self._optimizer = make_optimizer(moving, settings, allowed_optimizers)
        if limit_norms is not None and isinstance(self._optimizer, ScheduleFree):
            message = "lora.max_norm: it would change weights that a schedule-free optimizer averages."
            raise UserError("lora.max_norm", message, "Leave it empty, or use adamw.", "lora.max_norm")
        self._base_rates = [group["lr"] for group in self._optimizer.param_groups]
        self._factor = learning_rate_factor(settings, max_steps)
        scaled = scaled or self._format == torch.float16
        self._scaler = torch.amp.GradScaler(self._parameters[0].device.type, enabled=scaled)
        self._ema = Ema(self._parameters, settings.ema) if settings.ema is not None else None
        self._limit = settings.max_grad_norm
        self._limit_norms = limit_norms
        self.loss = torch.zeros((), device=self._parameters[0].device)
        self.decides_on_device = self._format == torch.float32 and leaves_out_on_device(self._optimizer)
        self.stays_in_place = False
        self.rate_share = 1.0
        self.step = 0
        self.skipped = 0
        self.learning_rate = 0.0
        self.other_learning_rates: dict[str, float] = {}
        self._others = {
            group.name: number for number, group in enumerate(moving) if group.learning_rate != moving[0].learning_rate
        }

    @property
    def limits_norms(self) -> bool:
        """Whether layers are shortened, so that there is something to say about how many."""
        return self._limit_norms is not None

    @property
    def weights(self) -> int:
        """How many numbers learn, or are kept as they are."""
        return sum(parameter.numel() for parameter in self._parameters)

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to those of the step, and the loss to the step's."""
        if not self.stays_in_place:
            self._scaler.scale(loss).backward()
        else:  # all gradients are added at once, rather than each in a kernel of its own
            before = self.places()
            for parameter in self._moving:
                parameter.grad = None
            self._scaler.scale(loss).backward()
            self._add_to(before)
        self.loss += loss.detach()

    @torch.no_grad()
    def _add_to(self, before: Sequence[Tensor | None]) -> None:
        """Add the gradients of a loss to those of the losses before, which stay where they lie."""
        pairs = [(old, new) for old, new in zip(before, self.places(), strict=True) if old is not None]
        both = [(old, new) for old, new in pairs if new is not None]
        if both:
            torch._foreach_add_([old for old, _ in both], [new for _, new in both])
        for parameter, old in zip(self._moving, before, strict=True):
            if old is not None:
                parameter.grad = old

    def learn_with(self, ranks: Ranks, passes: int) -> None:
        """From now on learn the same in all processes; for ``passes`` see ``GradientSum``."""
        self._add_up = ranks.add_up(self._moving, passes)

    def join(self) -> None:
        """Make the step's gradients and its loss those of all processes."""
        if self._add_up is not None:
            self._add_up(self.loss)

    def advance(self) -> Tensor:
        """Go on to the next step; returns what ``apply_gradients`` has to know of it, on the host."""
        set_learning_rate(self._optimizer, self._base_rates, self.rate_share * self._factor(self.step))
        self.learning_rate = effective_learning_rate(self._optimizer)
        self.other_learning_rates = {
            name: effective_learning_rate(self._optimizer, number) for name, number in self._others.items()
        }
        self.step += 1
        told = [group["lr"] for group in self._optimizer.param_groups]
        if self._ema is not None:
            told.append(self._ema.share_at(self.step))
        # As exact as Python's numbers where they can be; the fused kernels of GPUs read float32
        features = features_of(self.loss.device)
        exact = features.float64 and not features.beside_host
        return torch.tensor(told, dtype=torch.float64 if exact else torch.float32)

    @torch.no_grad()
    def apply_gradients(self, told: Tensor) -> Tensor:
        """Change the weights by the step's gradients, unless one is not finite, and forget the gradients.

        Args:
            told: what ``advance`` returned, on the device.

        Returns:
            (3,) float32 on the device: the step's loss, the length of its gradient before it was clipped, and how
            many layers the norm limit has shortened.
        """
        gradients = self.places()
        self._scaler.unscale_(self._optimizer)
        grad_norm = self._clipped_norm()
        finite = grad_norm.isfinite()
        if self.decides_on_device:
            step_where(self._optimizer, finite, told[: len(self._base_rates)].unbind())
        elif finite:  # waits for the device
            with self._kept_in_place():
                self._step_optimizer()
        shortened = self._limit_norms(finite) if self._limit_norms is not None else torch.zeros_like(self.loss)
        if self._ema is not None:
            self._ema.take_in(torch.where(finite, told[-1], 0))
        self._scaler.update()
        numbers = torch.stack([self.loss, grad_norm.float(), shortened.float()])
        self._forget(gradients)
        return numbers

    def heard(self, grad_norm: float) -> None:
        """Count the updates that were left out, by the steps' gradient lengths in their order."""
        self.skipped = 0 if math.isfinite(grad_norm) else self.skipped + 1

    @torch.no_grad()
    def not_finite(self) -> str | None:
        """Which part holds values that are NaN or infinite, in words; None where none does. Waits for the device."""
        states = (value for values in self._optimizer.state.values() for value in values.values())
        parts: dict[str, Iterable[Any]] = {
            "the weights": self._parameters,
            "the optimizer's averages": states,
            "the running mean of the weights": self._ema.state() if self._ema is not None else (),
        }
        return next((name for name, values in parts.items() if not all(map(_is_finite, values))), None)

    def forget_gradients(self) -> None:
        """Begin the step again, as if nothing had been added up for it."""
        self._forget(self.places())

    def places(self) -> list[Tensor | None]:
        """Where the gradients lie, for ``restore``, and to be compared with where they lie later."""
        return [parameter.grad for parameter in self._moving]

    def restore(self, places: Sequence[Tensor | None]) -> None:
        """Bring gradients and loss scaler back, after a capture that failed somewhere on its way."""
        for parameter, gradient in zip(self._moving, places, strict=True):
            parameter.grad = gradient
        if self._scaler.is_enabled():
            state = self._scaler.state_dict()
            self._scaler = torch.amp.GradScaler(self.loss.device.type)
            self._scaler.load_state_dict(state)

    @contextmanager
    def _kept_in_place(self) -> Iterator[None]:
        """Afterwards the weights lie where they lay: some optimizers put new ones in their place."""
        places = [parameter.data for parameter in self._moving]
        yield
        for parameter, place in zip(self._moving, places, strict=True):
            if self.stays_in_place and parameter.data_ptr() != place.data_ptr():
                place.copy_(parameter)
                parameter.data = place

    def _clipped_norm(self) -> Tensor:
        """The length of the gradient, which is shortened to ``max_grad_norm`` where there is such a limit."""
        if self._limit:
            return nn.utils.clip_grad_norm_(self._moving, self._limit)
        return nn.utils.get_total_norm([each for each in self.places() if each is not None])

    def _forget(self, gradients: Sequence[Tensor | None]) -> None:
        self.loss.zero_()
        if not self.stays_in_place:
            self._optimizer.zero_grad(set_to_none=True)
            return
        for parameter, gradient in zip(self._moving, gradients, strict=True):
            parameter.grad = gradient  # where the optimizer took it away
        torch._foreach_zero_([gradient for gradient in gradients if gradient is not None])

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
                # the step count stays where the optimizer wants it, and paged averages where CUDA moves them
                if isinstance(value, Tensor) and value.ndim and not hasattr(value, "is_paged"):
                    values[name] = value.to(device)
        if self._ema is not None:
            self._ema.to(device)
        if self._add_up is not None:
            self._add_up.move(device)


def _is_finite(value: Any) -> bool:
    """Of tensors of fractions; all else is. A sum that is finite, read in one go, has none but finite terms."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def _copied(value: Any) -> Any:
    """Nested lists and dictionaries with copies of their tensors, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(each) for each in value)
    return value
