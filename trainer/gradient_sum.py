"""Gradients of several processes added up, bucket by bucket, where they can while the backward pass goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 8 << 20
"""Of float32: large enough that a reduction's latency is nothing beside it, small enough that several overlap."""


@dataclass
class _Bucket:
    """Parameters whose gradients travel together. ``numbers`` has one place more than they need."""

    parameters: list[nn.Parameter]
    numbers: Tensor = field(init=False)
    places: list[Tensor] = field(init=False)
    missing: int = 0
    sent: Any = None

    def lie_on(self, device: torch.device) -> None:
        """Have room on a device; what was in it is forgotten."""
        sizes = [parameter.numel() for parameter in self.parameters]
        self.numbers = torch.zeros(sum(sizes) + 1, device=device)
        parts = self.numbers[:-1].split(sizes)
        self.places = [part.view_as(each) for part, each in zip(parts, self.parameters, strict=True)]


class GradientSum:
    """Replaces each gradient by the sum over all processes; where a process has none, its gradient is zero.

    Only what learns is added up: the frozen weights are a copy in each process. Sums are computed in float32, whatever
    format the gradients have, and are the same bits everywhere. Buckets are sent in one fixed order, from the model's
    end to its beginning, as the backward pass fills them: so processes agree even where one is called, one is replayed
    and one has no picture.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], passes: int, bucket_bytes: int = BUCKET_BYTES) -> None:
        """Add up the gradients of ``parameters``.

        Args:
            parameters: what learns, in the model's order, the same in all processes.
            passes: backward passes of a step. A bucket is sent as soon as each of its gradients has come so often;
                0 sends all at the step's end.
            bucket_bytes: the most that a bucket holds, but for a single larger gradient.
        """
        self._passes = passes
        self._buckets = _buckets(parameters, bucket_bytes)
        self._came: dict[nn.Parameter, int] = {}
        self._next = 0
        if passes:
            for bucket in self._buckets:
                for parameter in bucket.parameters:
                    parameter.register_post_accumulate_grad_hook(self._noted(bucket))
        self._begin()

    def __call__(self, loss: Tensor) -> None:
        """Finish the step: all gradients are sums when this returns, and so is ``loss``, a scalar."""
        last = self._buckets[-1]
        last.numbers[-1:] = loss
        self._send(len(self._buckets))
        for bucket in self._buckets:
            bucket.sent.wait()
            for parameter in bucket.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter, dtype=parameter.grad_dtype)
            gradients = [each.grad for each in bucket.parameters if each.grad is not None]
            torch._foreach_copy_(gradients, bucket.places)
        loss.copy_(last.numbers[-1])
        self._begin()

    def move(self, device: torch.device) -> None:
        """Bring the buckets to where the parameters now are."""
        for bucket in self._buckets:
            bucket.lie_on(device)

    def _begin(self) -> None:
        self._came.clear()
        self._next = 0
        for bucket in self._buckets:
            bucket.missing, bucket.sent = len(bucket.parameters), None

    def _noted(self, bucket: _Bucket) -> Any:
        """The hook of a bucket's parameters."""

        def note(parameter: nn.Parameter) -> None:
            self._came[parameter] = self._came.get(parameter, 0) + 1
            if self._came[parameter] == self._passes:
                bucket.missing -= 1
                ready = self._next
                while ready < len(self._buckets) - 1 and not self._buckets[ready].missing:  # the last has the loss too
                    ready += 1
                self._send(ready)

        return note

    def _send(self, end: int) -> None:
        """Begin the reductions up to the ``end``-th bucket that have not begun yet."""
        for bucket in self._buckets[self._next : end]:
            gradients = [each.grad for each in bucket.parameters]
            if any(each is None for each in gradients):
                bucket.numbers[:-1].zero_()
            places = [place for place, each in zip(bucket.places, gradients, strict=True) if each is not None]
            if places:
                torch._foreach_copy_(places, [each for each in gradients if each is not None])
            bucket.sent = dist.all_reduce(bucket.numbers, async_op=True)
        self._next = max(self._next, end)


def _buckets(parameters: Sequence[nn.Parameter], most_bytes: int) -> list[_Bucket]:
    """The parameters from the last to the first, in buckets."""
    groups: list[list[nn.Parameter]] = [[]]
    held = 0
    for parameter in reversed(parameters):
        if groups[-1] and held + parameter.numel() * 4 > most_bytes:
            groups.append([])
            held = 0
        groups[-1].append(parameter)
        held += parameter.numel() * 4
    buckets = [_Bucket(group) for group in groups]
    for bucket in buckets:
        bucket.lie_on(parameters[0].device)
    return buckets
