"""How fast training is: the recipe's own step on random weights and random pictures."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import psutil
import torch
from torch import Tensor

from trainer.conditioning import caption_encoder
from trainer.config import Config
from trainer.data.buckets import resolutions
from trainer.data.random_set import random_training_set
from trainer.data.training_set import Batch, TrainingSet
from trainer.device_needs import suited
from trainer.devices import (
    compute_dtype,
    device_name,
    forget_peak_memory,
    give_back_memory,
    gpu_held,
    kind_of,
    peak_memory_bytes,
    pick_device,
    use_deterministic,
    wait_for,
)
from trainer.families import load_family, random_family
from trainer.families.base import Family
from trainer.late_numbers import LateNumbers, moment
from trainer.learning import Learning
from trainer.lora.adapter import add_adapters, norm_limiter
from trainer.offload import offload_blocks
from trainer.parameter_groups import parameter_groups
from trainer.plan_fixes import changed
from trainer.profiling.growth import Growth, VariedStep, growth, variations
from trainer.profiling.memory import memory_by_kind
from trainer.profiling.profile import StepProfile, profile_step
from trainer.profiling.spans import DATA, span
from trainer.profiling.work import work_of
from trainer.quantize import quantize_denoiser
from trainer.recipe import Ingredients, train_step
from trainer.runs.events import EventSink
from trainer.step_calls import CALLED, Calls, calls_of
from trainer.together import let_parts_rest, set_training_mode

WARM_UP_STEPS = 3
BATCHES = 4
"""Batches of an epoch of the random pictures."""
PRECISIONS = {torch.float32: "no", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Measurement:
    """What a bench answers. Times of steps are without the first three."""

    step_ms_median: float
    step_ms_p90: float
    images_per_s: float
    load_s: float
    compile_s: float
    first_step_s: float
    peak_vram_bytes: int
    peak_rss_bytes: int
    steps: int
    family: str
    size: str
    resolution: int | list[int]
    batch: int
    rank: int
    precision: str
    device: str
    torch: str


@dataclass(frozen=True)
class _Bench:
    """A run's step, ready to be taken again and again."""

    ingredients: Ingredients
    learning: Learning
    data: TrainingSet
    load_s: float

    def step(self, calls: Calls = CALLED) -> None:
        """One optimizer step of the recipe, which can be looked into where it is called."""
        self.begin_step(calls)
        wait_for(self.ingredients.device)

    def begin_step(self, calls: Calls) -> Tensor:
        """The same; a GPU may not have computed it yet. Returns the step's numbers."""
        return train_step(self.ingredients, self.learning, self._batch, calls)

    def _batch(self, index: int) -> Batch | None:
        with span(DATA):
            return self.data.batch(index)


def measure(config: Config, *, size: Literal["demo", "full"], model_given: bool, events: EventSink) -> Measurement:
    """Train ``config.train.max_steps`` steps and time them.

    Args:
        config: the settings; ``model.base`` is loaded where ``model_given``.
        size: of the random model otherwise.
        model_given: use real weights.
        events: where progress goes.
    """
    device = pick_device()
    with gpu_held(device, "measuring of the speed", events):
        return _measured(_bench(config, size, model_given, device, events), "given" if model_given else size, events)


def measure_and_profile(
    config: Config, *, size: Literal["demo", "full"], model_given: bool, events: EventSink, trace: Path | None
) -> tuple[Measurement, StepProfile]:
    """``measure``, and what ``profile_step`` finds in some more steps; ``trace`` is where the profiler's events go."""
    device = pick_device()
    with gpu_held(device, "measuring of the speed", events):
        bench = _bench(config, size, model_given, device, events)
        measured = _measured(bench, "given" if model_given else size, events)
        events.emit("progress", what="profiling", done=0, total=1)
        family, dtype = bench.ingredients.family, bench.ingredients.dtype
        step_ms = measured.step_ms_median
        return measured, profile_step(family, bench.step, device, dtype, step_ms=step_ms, trace=trace)


def measure_growth(
    config: Config, *, size: Literal["demo", "full"], model_given: bool, events: EventSink
) -> list[Growth]:
    """Measure what a step costs as batch, rank and resolution grow one at a time, against the settings as given."""
    device, steps = pick_device(), []
    with gpu_held(device, "measuring of the speed", events):
        for what, changes in variations(config):
            bench = _bench(changed(config, changes), size, model_given, device, events)
            measured = _measured(bench, size, events)
            work = work_of(bench.step)
            memory = memory_by_kind(bench.ingredients.family, bench.step, device)
            steps.append(VariedStep(what, measured.step_ms_median, measured.images_per_s, work, memory.peak))
    return growth(steps)


def _bench(
    config: Config, size: Literal["demo", "full"], model_given: bool, device: torch.device, events: EventSink
) -> _Bench:
    begun = time.perf_counter()
    config = changed(config, {"dataset.cache.to_disk": False})
    config = suited(config, kind_of(device), (), partial(_warn, events))
    use_deterministic(config.train.deterministic)
    dtype = compute_dtype(config.train.mixed_precision, device)
    family = _family(config, size, model_given, device, dtype)
    quantize_denoiser(family.denoiser, config.model.quantize)
    offload_blocks(family.denoiser, config.model.offload, device)
    groups = parameter_groups(add_adapters(family, config.lora, seed=config.train.seed), config.train)
    limit, scaled = norm_limiter(family, config.lora), dtype == torch.float16
    learning = Learning(groups, config.train, config.train.max_steps, scaled=scaled, limit_norms=limit)
    set_training_mode(family, config)
    data = random_training_set(config, family, config.train.batch_size * BATCHES)
    encode = caption_encoder(family, config, data.text_plan, Path(), events, lambda: None)
    let_parts_rest(family, config, data)
    give_back_memory(device)
    forget_peak_memory(device)
    ingredients = Ingredients(config, family, encode, device, dtype, family.alphas_cumprod.to(device))
    return _Bench(ingredients, learning, data, time.perf_counter() - begun)


def _warn(events: EventSink, code: str, message: str, hint: str) -> None:
    events.emit("warning", code=code, message=message, hint=hint)


def _measured(bench: _Bench, size: str, events: EventSink) -> Measurement:
    config, device, family = bench.ingredients.config, bench.ingredients.device, bench.ingredients.family
    steps = config.train.max_steps
    calls = calls_of(config, bench.learning, family, device, events)
    times = _times_of(bench, calls, lambda step: events.emit("progress", what="measuring", done=step, total=steps))
    steady = sorted(times[WARM_UP_STEPS:] or times)
    median = statistics.median(steady)
    width, height = resolutions(config.dataset)[0]
    pictures = config.train.batch_size * config.train.gradient_accumulation_steps
    return Measurement(
        step_ms_median=round(median * 1000, 3),
        step_ms_p90=round(steady[min(len(steady) - 1, int(len(steady) * 0.9))] * 1000, 3),
        images_per_s=round(pictures / median, 3),
        load_s=round(bench.load_s, 3),
        compile_s=0.0,
        first_step_s=round(times[0], 3),
        peak_vram_bytes=peak_memory_bytes(device) or 0,
        peak_rss_bytes=_peak_rss_bytes(),
        steps=len(times),
        family=family.name,
        size=size,
        resolution=width if width == height else [width, height],
        batch=config.train.batch_size,
        rank=config.lora.rank,
        precision=PRECISIONS[bench.ingredients.dtype],
        device=device_name(device),
        torch=torch.__version__,
    )


def _times_of(bench: _Bench, calls: Calls, tell: Callable[[int], object]) -> list[float]:
    """Seconds from the end of each step to the end of the next, the first one's from its beginning.

    As in a run, the next steps begin before the numbers of one are read; those of the warm-up are waited for.
    """
    device, times = bench.ingredients.device, list[float]()
    late, steps = LateNumbers[None](device), bench.ingredients.config.train.max_steps
    last = time.perf_counter()
    for step in range(steps):
        begin = moment(device)
        late.add(None, bench.begin_step(calls), begin)
        for _ in late.all() if step < WARM_UP_STEPS or step == steps - 1 else late.ready():
            times.append(time.perf_counter() - last)
            last += times[-1]
            tell(len(times))
    return times


def _family(
    config: Config, size: Literal["demo", "full"], model_given: bool, device: torch.device, dtype: torch.dtype
) -> Family:
    if model_given:
        return load_family(config.model, device=device, dtype=dtype, prediction_type=config.loss.prediction_type)
    return random_family(config.model, size, device=device, dtype=dtype)


def _peak_rss_bytes() -> int:
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
