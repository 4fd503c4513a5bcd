"""A step under PyTorch's profiler: where its time and memory go, and the bound beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from trainer.devices import features_of, wait_for
from trainer.families.base import Family
from trainer.files import atomic_path
from trainer.profiling.memory import MemoryByKind, memory_by_kind
from trainer.profiling.spans import STEP, layers_of, parts_marked, span
from trainer.profiling.times import LayerTime, Operation, Phase, Trace
from trainer.profiling.work import matrix_rate, work_of

PROFILED_STEPS = 2
_LONGEST = 12

Step = Callable[[], object]


@dataclass(frozen=True)
class StepProfile:
    """What ``trainer bench --profile`` tells beside the measurement.

    Attributes:
        steps: that were profiled.
        profiled_step_ms: one of them, longer than without the profiler.
        phases: where its time goes; together they are the step.
        busy_ms: how long in it the device, or PyTorch on the CPU, computed.
        idle_ms: how long in it the device had nothing to compute, as Python had not told it yet.
        idle_share: of the step.
        kernels: what a GPU was given to do; None on the CPU.
        operations: calls of PyTorch's operations, views left out.
        top_operations: the longest, by the time they took themselves.
        top_layers: the longest layers of the denoiser, forward and backward.
        memory: by kind.
        flops: of a step: matrix products, convolutions and attention.
        matrix_flops_per_s: what a large matrix product reaches on this device, in this format, in the same run.
        bound_ms: what the step would take at that rate.
        matrix_share: of that rate, what the step reaches without the profiler.
        busy_share: of the step without the profiler, how long the device computes; on a GPU such a step is replayed.
    """

    steps: int
    profiled_step_ms: float
    phases: list[Phase]
    busy_ms: float
    idle_ms: float
    idle_share: float
    kernels: int | None
    operations: int
    top_operations: list[Operation]
    top_layers: list[LayerTime]
    memory: MemoryByKind
    flops: int
    matrix_flops_per_s: float
    bound_ms: float
    matrix_share: float
    busy_share: float


def profile_step(
    family: Family, step: Step, device: torch.device, dtype: torch.dtype, *, step_ms: float, trace: Path | None
) -> StepProfile:
    """Profile a step that was called some times before.

    Args:
        family: the model, whose forward passes are marked.
        step: a whole training step; it may change weights.
        device: where it computes.
        dtype: of its matrix products.
        step_ms: what it takes without a profiler.
        trace: where the profiler's events go, for chrome://tracing or Perfetto.
    """
    found = _traced(family, step, device, trace)
    kinds = {name: type(layer).__name__ for name, layer in layers_of(family.denoiser)}
    work, rate = work_of(step), matrix_rate(device, dtype)
    bound_ms = work.flops / rate * 1000
    return StepProfile(
        steps=PROFILED_STEPS,
        profiled_step_ms=round(found.step_ms, 3),
        phases=found.phases(),
        busy_ms=round(found.step_ms - found.idle_ms, 3),
        idle_ms=round(found.idle_ms, 3),
        idle_share=round(found.idle_ms / found.step_ms, 4),
        kernels=found.kernels,
        operations=work.operations,
        top_operations=found.operations(_LONGEST),
        top_layers=found.layers(kinds, _LONGEST),
        memory=memory_by_kind(family, step, device),
        flops=work.flops,
        matrix_flops_per_s=round(rate),
        bound_ms=round(bound_ms, 3),
        matrix_share=round(bound_ms / step_ms, 4),
        busy_share=round(min(1.0, (found.step_ms - found.idle_ms) / step_ms), 4),
    )


def _traced(family: Family, step: Step, device: torch.device, file: Path | None) -> Trace:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if features_of(device).kernel_times else [])]
    with parts_marked(family), profile(activities=activities) as recorded:
        for _ in range(PROFILED_STEPS):
            with span(STEP):
                step()
                wait_for(device)
    if file is not None:
        with atomic_path(file) as temporary:
            recorded.export_chrome_trace(str(temporary))
    return Trace(recorded.events() or [])
