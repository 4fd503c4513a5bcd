"""What a run will need: GPU memory and disk by formula, time from former runs. Never torch."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from trainer.config import Config, Optimizer, Quantize, TrainSettings
from trainer.data.epoch import Layout
from trainer.data.text_plan import TextPlan, embedding_bytes, text_plan
from trainer.errors import UserError
from trainer.model_sizes import ModelSizes
from trainer.runs.events import read_events
from trainer.runs.store import Run, Workspace

_LATENT_SCALE = 8
_LATENT_CHANNELS = 4
_LOOKED_AT_RUNS = 20
_FIRST_STEPS = 5  # warming up; not typical

# Bytes per latent cell and channel of the denoiser's first level, in 16-bit precision. The tensors that autograd keeps
# were counted on SD 1.5 and on the demo model (250 and 330 KiB per cell at 320 channels, 30 and 40 at 32); what the
# backward pass needs beside them is fitted to 2.9 GiB without and 2.0 GiB with checkpointing, SD 1.5 at 512 on an H100.
# Counted in the same way at 1024, SDXL keeps 1.8 times as much as SD 1.5, as its transformer blocks are more ("depth").
# That gives 13.8 GiB without and 6.3 with checkpointing; SimpleTuner's sweep measured 13.0 and 6.5.
_ACTIVATION_BYTES = {"attention": 1024, "attention_ff": 1280, "full": 1280}
_CHECKPOINTED_BYTES = 288
_DEPTH_OF_THE_REST = 5.2  # what a UNet keeps outside of its transformer blocks, in the same measure
_SD15_DEPTH = 8.8125
_FLOAT32_FACTOR = 1.4

_OPTIMIZER_BYTES: dict[Optimizer, int] = {
    "adamw": 8,
    "adamw8bit": 2,
    "adafactor": 1,
    "lion": 4,
    "prodigy": 16,
    "schedule_free_adamw": 8,
    "dadapt_adam": 12,
    "sgd": 4,
    "custom": 8,
}
_QUANTIZED_BYTES: dict[Quantize, float] = {"fp8": 1, "int8": 1, "nf4": 0.5 + 4 / 64}  # scales are told with nf4 only
_CUDA_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Memory:
    """Estimated GPU memory in bytes, by what takes it."""

    weights: int
    lora: int
    optimizer: int
    activations: int
    cuda: int

    @property
    def total(self) -> int:
        return self.weights + self.lora + self.optimizer + self.activations + self.cuda


def training_memory(config: Config, sizes: ModelSizes, largest_bucket_px: int, *, texts_rest: bool = False) -> Memory:
    """GPU memory of a training step.

    weights (denoiser as quantised or in the compute precision, as the text encoders; VAE in float32) + LoRA (with
    float32 gradients, and EMA) + optimizer states + activations (bytes per latent cell, in proportion to the denoiser's
    first width and depth; and for DoRA, LoHa and LoKr the changes of the weights, each kept for the backward pass)
    + what CUDA itself takes.

    Args:
        config: the run's settings.
        sizes: of the model.
        largest_bucket_px: pixels of the largest bucket.
        texts_rest: whether the text encoders are out of the way, see ``TextPlan.texts_rest``.
    """
    train = config.train
    full = train.mixed_precision == "no"
    depth = (sizes.depth + _DEPTH_OF_THE_REST) / (_SD15_DEPTH + _DEPTH_OF_THE_REST)
    kept = _ACTIVATION_BYTES[config.lora.target] * depth
    per_cell = _CHECKPOINTED_BYTES if train.gradient_checkpointing else kept
    cells = train.batch_size * largest_bucket_px / _LATENT_SCALE**2
    changes_are_kept = config.lora.type != "lora" and not train.gradient_checkpointing
    changes = sizes.adapted * (4 if full else 2) if changes_are_kept else 0
    number = 4 if full else 2
    denoiser = int(sizes.denoiser * _QUANTIZED_BYTES.get(config.model.quantize, number))
    return Memory(
        weights=denoiser + (0 if texts_rest else sizes.text) * number + sizes.vae * 4,
        lora=sizes.lora * (_weight_bytes(train) + 4 + (0 if train.ema is None else 4)),
        optimizer=sizes.lora * _optimizer_bytes(train),
        activations=int(cells * sizes.channels * per_cell * (_FLOAT32_FACTOR if full else 1)) + changes,
        cuda=_CUDA_BYTES,
    )


def _weight_bytes(train: TrainSettings) -> int:
    """Of each of the LoRA's weights."""
    return 4 if train.lora_precision == "float32" else 2


def _optimizer_bytes(train: TrainSettings) -> int:
    """Of the optimizer's state, for each weight; what is less than a number for each stays as it is."""
    full = _OPTIMIZER_BYTES[train.optimizer]
    return full if full < 4 or train.lora_precision == "float32" else full // 2


def disk_bytes(config: Config, sizes: ModelSizes, layout: Layout, texts: TextPlan) -> int:
    """Caches, kept checkpoints (LoRA file, float32 weights and optimizer) and the finished file."""
    total = 0
    cache = config.dataset.cache
    if cache.to_disk and cache.latents:
        pixels = [math.prod(entry.bucket) * _cached_forms(config, entry.picture.source) for entry in layout.training]
        pixels += [math.prod(entry.bucket) for entry in layout.validation]
        total += sum(pixels) // _LATENT_SCALE**2 * _LATENT_CHANNELS * 4
    if cache.to_disk and texts.how == "beforehand":
        total += texts.bytes
    file = sizes.lora * (4 if config.output.precision == "float" else 2)
    state = sizes.lora * (_weight_bytes(config.train) + _optimizer_bytes(config.train))
    return total + (config.output.keep_last + config.keeps_best) * (file + state) + file


def planned_texts(config: Config, sizes: ModelSizes, layout: Layout) -> TextPlan:
    """How the captions will be encoded, with embeddings of the size that the settings' precision gives on a GPU."""
    number_bytes = 4 if config.train.mixed_precision == "no" else 2
    row = embedding_bytes(config.dataset.captions, sizes.text_width, number_bytes)
    return text_plan(config, layout.training, layout.validation, row)


def _cached_forms(config: Config, source: int | None) -> int:
    """In how many forms a picture is cached, at most."""
    augment = config.dataset.augment_of(source)
    return (config.dataset.cache.variants if augment.changes_pixels else 1) * (2 if augment.flip else 1)


def measured_step(config: Config, workspace: Workspace) -> tuple[float, str] | None:
    """Median milliseconds of a step in the newest run with the same work per step, and that run's id; None without."""
    for run in workspace.runs()[:_LOOKED_AT_RUNS]:
        try:
            same = _work_per_step(run.config()) == _work_per_step(config)
        except UserError:
            continue
        step_ms = _median_step_ms(run) if same else None
        if step_ms is not None:
            return step_ms, run.id
    return None


def _work_per_step(config: Config) -> dict[str, object]:
    """What decides how long a step takes on a given machine."""
    return {
        "base": config.model.base,
        "resolution": config.dataset.resolution,
        "train": config.train.model_dump(
            include={"batch_size", "gradient_accumulation_steps", "mixed_precision", "gradient_checkpointing"}
        ),
        "lora": config.lora.model_dump(include={"train", "target", "type"}),
        "preserved": config.loss.preserve is not None,
        "cached": config.dataset.cache.latents,
    }


def _median_step_ms(run: Run) -> float | None:
    times = [event["step_ms"] for event in read_events(run.events_path) if event["type"] == "metric"]
    times = [float(each) for each in times if isinstance(each, int | float)][_FIRST_STEPS:]
    return statistics.median(times) if times else None
