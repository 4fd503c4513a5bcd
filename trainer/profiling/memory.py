"""What lies in memory during a training step, by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.profiler import ProfilerActivity, profile

from trainer.devices import backend, features_of
from trainer.families.base import Family


@dataclass(frozen=True)
class MemoryByKind:
    """Bytes by kind; ``peak`` is the most there was at once in a step.

    Attributes:
        denoiser: its weights, without adapters.
        text_encoders: theirs.
        vae: its weights.
        lora: the weights that learn.
        gradients: theirs, when the optimizer is called.
        optimizer: its state.
        activations: what the forward pass keeps for the backward pass.
        temporary: the rest at the peak: results on their way, workspaces of libraries.
        peak: of all kinds together.
    """

    denoiser: int
    text_encoders: int
    vae: int
    lora: int
    gradients: int
    optimizer: int
    activations: int
    temporary: int
    peak: int


class _Optimizers:
    """What optimizers hold, looked at when they are called."""

    def __init__(self) -> None:
        self.gradients = self.state = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        hooks = [register_optimizer_step_pre_hook(self._before), register_optimizer_step_post_hook(self._behind)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _before(self, optimizer: Optimizer, *_: object) -> None:
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        self.gradients = _bytes(each.grad for each in parameters if each.grad is not None)

    def _behind(self, optimizer: Optimizer, *_: object) -> None:
        values = [value for state in optimizer.state.values() for value in state.values()]
        self.state = _bytes(value for value in values if isinstance(value, Tensor))


def memory_by_kind(family: Family, step: Callable[[], object], device: torch.device) -> MemoryByKind:
    """Run a step twice and see what lies in memory. Others must have gone before: optimizers are filled by then."""
    optimizers = _Optimizers()
    with optimizers.watched():
        activations = _kept_for_backward(family, step)
    above = _most_above(step, device)
    frozen = {part: _frozen(module, device) for part, module in family.loaded.items()}
    lora = _bytes(each for module in family.loaded.values() for each in module.parameters() if each.requires_grad)
    kinds = {
        "denoiser": frozen["unet"],
        "text_encoders": sum(size for part, size in frozen.items() if part.startswith("text_encoder")),
        "vae": frozen.get("vae", 0),
        "lora": lora,
        "optimizer": optimizers.state,
        "activations": activations,
        "gradients": optimizers.gradients,
    }
    resting = sum(kinds.values()) - activations - optimizers.gradients
    # gradients come as activations go: where both together are more than the peak, they were not there at once
    return MemoryByKind(**kinds, temporary=max(0, above - activations), peak=resting + above)


def _kept_for_backward(family: Family, step: Callable[[], object]) -> int:
    """Bytes that autograd keeps in a step, each storage once; weights lie there anyhow."""
    weights = {
        each.untyped_storage().data_ptr()
        for module in family.loaded.values()
        for each in (*module.parameters(), *module.buffers())
    }
    kept: dict[int, int] = {}
    most, in_backward = 0, False

    def keep(tensor: Tensor) -> Tensor:
        nonlocal most, in_backward
        if in_backward:  # the next batch of the same step
            most, in_backward = max(most, sum(kept.values())), False
            kept.clear()
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def give(tensor: Tensor) -> Tensor:
        nonlocal in_backward
        in_backward = True
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, give):
        step()
    return max(most, sum(kept.values()))


def _most_above(step: Callable[[], object], device: torch.device) -> int:
    """The most bytes that a step has beside what there was before it."""
    if features_of(device).memory_counts:
        counts = backend(device)
        before = counts.memory_allocated(device)
        counts.reset_peak_memory_stats(device)
        step()
        return int(counts.max_memory_allocated(device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    results: Any = recorded.profiler.kineto_results
    changes = [event for event in results.events() if event.name() == "[memory]"]
    most = now = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def _frozen(module: nn.Module, device: torch.device) -> int:
    """Weights that do not learn, as far as they lie on the device."""
    parameters = [each for each in module.parameters() if not each.requires_grad]
    return _bytes(each for each in (*parameters, *module.buffers()) if each.device.type == device.type)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """What tensors take, those that share a storage once."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(storages.values())
