"""How fast training is: the recipe's own step on random weights and random latents."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from trainer.conditioning import caption_encoder
from trainer.config import Config
from trainer.data.buckets import resolutions
from trainer.data.cache import text_row_bytes
from trainer.data.text_plan import plan_texts
from trainer.data.training_set import Batch
from trainer.devices import compute_dtype, device_name, gpu_held, pick_device, seeded_generator, use_deterministic
from trainer.families import load_family, random_family
from trainer.families.base import Family
from trainer.learning import Learning
from trainer.lora.adapter import add_adapters, norm_limiter
from trainer.parameter_groups import parameter_groups
from trainer.quantize import quantize_denoiser
from trainer.recipe import Ingredients, train_step
from trainer.runs.events import EventSink
from trainer.upkeep import set_training_mode

WARM_UP_STEPS = 3
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
        return _measured(config, size, model_given, device, events)


def _measured(
    config: Config, size: Literal["demo", "full"], model_given: bool, device: torch.device, events: EventSink
) -> Measurement:
    use_deterministic(config.train.deterministic)
    dtype = compute_dtype(config.train.mixed_precision, device)
    begun = time.perf_counter()
    family = _family(config, size, model_given, device, dtype)
    quantize_denoiser(family.denoiser, config.model.quantize)
    groups = parameter_groups(add_adapters(family, config.lora, seed=config.train.seed), config.train)
    limit, scaled = norm_limiter(family, config.lora), dtype == torch.float16
    learning = Learning(groups, config.train, config.train.max_steps, scaled=scaled, limit_norms=limit)
    set_training_mode(family, config.train)
    batch = _random_batch(config, family)
    texts = plan_texts(config, batch.captions, True, text_row_bytes(family, config.dataset.captions))
    encode = caption_encoder(family, config, texts, Path(), events, lambda: None)
    ingredients = Ingredients(config, family, encode, device, dtype, family.alphas_cumprod.to(device))
    loaded = time.perf_counter()
    times = []
    for step in range(config.train.max_steps):
        step_begun = time.perf_counter()
        train_step(ingredients, learning, lambda index: batch)
        times.append(time.perf_counter() - step_begun)
        events.emit("progress", what="measuring", done=step + 1, total=config.train.max_steps)
    steady = sorted(times[WARM_UP_STEPS:] or times)
    median = statistics.median(steady)
    width, height = resolutions(config.dataset)[0]
    pictures = config.train.batch_size * config.train.gradient_accumulation_steps
    return Measurement(
        step_ms_median=round(median * 1000, 3),
        step_ms_p90=round(steady[min(len(steady) - 1, int(len(steady) * 0.9))] * 1000, 3),
        images_per_s=round(pictures / median, 3),
        load_s=round(loaded - begun, 3),
        compile_s=0.0,
        first_step_s=round(times[0], 3),
        peak_vram_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        peak_rss_bytes=_peak_rss_bytes(),
        steps=len(times),
        family=family.name,
        size="given" if model_given else size,
        resolution=width if width == height else [width, height],
        batch=config.train.batch_size,
        rank=config.lora.rank,
        precision=PRECISIONS[dtype],
        device=device_name(device),
        torch=torch.__version__,
    )


def _family(
    config: Config, size: Literal["demo", "full"], model_given: bool, device: torch.device, dtype: torch.dtype
) -> Family:
    if model_given:
        return load_family(config.model, device=device, dtype=dtype, prediction_type=config.loss.prediction_type)
    return random_family(config.model, size, device=device, dtype=dtype)


def _random_batch(config: Config, family: Family) -> Batch:
    width, height = resolutions(config.dataset)[0]
    count = config.train.batch_size
    shape = (count, 4, height // family.latent_scale, width // family.latent_scale)
    return Batch(
        latents=torch.randn(shape, generator=seeded_generator(config.train.seed, "bench")),
        captions=[f"a picture, number {number}" for number in range(count)],
        loss_weights=torch.ones(count),
        sizes=torch.tensor([[height, width, 0, 0, height, width]] * count),
        paths=[],
    )


def _peak_rss_bytes() -> int:
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
