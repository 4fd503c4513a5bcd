"""How fast pictures are drawn, beside plain diffusers with the same weights, sampler, size and number format."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from trainer.config import ModelSettings
from trainer.devices import (
    MixedPrecision,
    compute_dtype,
    device_name,
    gpu_held,
    pick_device,
)
from trainer.drawing import draw
from trainer.families import random_family
from trainer.families.base import Family
from trainer.graphs import graph_maker
from trainer.pictures import PictureSettings
from trainer.replaying import Replaying
from trainer.runs.events import EventSink

WARM_UPS = 2
"""Batches before those that count: the first is called, the second captured."""
ROUNDS = 5
_TEXTS = {"prompt": "a lighthouse by the sea", "negative": "rain"}


@dataclass(frozen=True)
class PictureMeasurement:
    """What ``trainer bench --pictures`` answers. Medians, without the first two batches."""

    images_per_s: float
    plain_images_per_s: float
    ratio: float
    first_s: float
    second_s: float
    replays: str
    steps: int
    family: str
    size: str
    resolution: int
    batch: int
    precision: str
    device: str
    torch: str


def measure_pictures(
    family: str,
    *,
    size: Literal["demo", "full"],
    resolution: int,
    batch: int,
    steps: int,
    precision: MixedPrecision,
    events: EventSink,
) -> PictureMeasurement:
    """Draw with random weights, by turns as the Generate tab does and by diffusers' own pipeline.

    Args:
        family: a name of ``families.FAMILIES``.
        size: of the random model.
        resolution: side of the pictures in pixels.
        batch: pictures drawn at once.
        steps: denoising steps of a picture.
        precision: number format of denoiser and text encoders; of the VAE too in the pipeline, while ours is float32.
        events: told of each round.
    """
    device = pick_device()
    dtype = compute_dtype(precision, device)
    settings = PictureSettings.model_validate(
        {**_TEXTS, "steps": steps, "guidance": 5.0, "width": resolution, "height": resolution, "sampler": "euler"}
    )
    with gpu_held(device, "measuring of the speed", events):
        loaded = random_family(ModelSettings.model_validate({"family": family}), size, device=device, dtype=dtype)
        ours, replays = _ours(loaded, settings, batch, device)
        plain = _plain(loaded, settings, batch, dtype)
        times: list[tuple[float, float]] = []
        for index in range(WARM_UPS + ROUNDS):
            times.append((_seconds(ours), _seconds(plain)))
            events.emit("progress", what="measuring", done=index + 1, total=WARM_UPS + ROUNDS)
    ours_s, plain_s = (statistics.median(each) for each in zip(*times[WARM_UPS:], strict=True))
    return PictureMeasurement(
        images_per_s=round(batch / ours_s, 3),
        plain_images_per_s=round(batch / plain_s, 3),
        ratio=round(plain_s / ours_s, 3),
        first_s=round(times[0][0], 3),
        second_s=round(times[1][0], 3),
        replays=replays(),
        steps=steps,
        family=loaded.name,
        size=size,
        resolution=resolution,
        batch=batch,
        precision=str(dtype).removeprefix("torch."),
        device=device_name(device),
        torch=torch.__version__,
    )


def _seconds(draw_batch: Callable[[], object]) -> float:
    """How long it takes; that there are pictures in the end means that the GPU is done."""
    begun = time.perf_counter()
    draw_batch()
    return time.perf_counter() - begun


def _ours(
    family: Family, settings: PictureSettings, batch: int, device: torch.device
) -> tuple[Callable[[], object], Callable[[], str]]:
    """What draws a batch, and what says how; as ``Painter`` does, which loads its model from a folder."""
    seeds, make_graph = list(range(batch)), graph_maker(device)
    if make_graph is None:
        return lambda: draw(family, settings, seeds), lambda: ""
    replaying = Replaying(family, make_graph)

    def draw_batch() -> object:
        with replaying.picture():
            return draw(cast(Family, replaying), settings, seeds)

    return draw_batch, lambda: replaying.in_words


def _plain(family: Family, settings: PictureSettings, batch: int, dtype: torch.dtype) -> Callable[[], object]:
    """What draws a batch as people do who write a script with diffusers."""
    pipeline: Any = family.pipeline(settings.sampler)
    pipeline.register_modules(vae=copy.deepcopy(pipeline.vae).to(dtype))
    return lambda: pipeline(
        prompt=[settings.prompt] * batch,
        negative_prompt=[settings.negative] * batch,
        width=settings.width,
        height=settings.height,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in range(batch)],
    )
