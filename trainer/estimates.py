"""What a run will need: memory and disk by formula. Never torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.activations import activation_bytes
from trainer.config import Config, Optimizer, Quantize, TrainSettings
from trainer.data.buckets import resolutions
from trainer.data.epoch import Layout, batches_per_epoch, total_steps
from trainer.data.text_plan import TextPlan, embedding_bytes, text_plan
from trainer.model_sizes import ModelSizes
from trainer.pace import epochs_by
from trainer.rhythm import rhythms_of

_LATENT_SCALE = 8
_LATENT_CHANNELS = 4

_FLOAT32_FACTOR = 1.4

_OPTIMIZER_BYTES: dict[Optimizer, int] = {
    "adamw": 8,
    "adamw8bit": 2,
    "paged_adamw": 8,
    "paged_adamw8bit": 2,
    "adafactor": 1,
    "lion": 4,
    "prodigy": 16,
    "schedule_free_adamw": 8,
    "dadapt_adam": 12,
    "sgd": 4,
    "custom": 8,
}
_QUANTIZED_BYTES: dict[Quantize, float] = {"fp8": 1, "int8": 1, "nf4": 0.5 + 4 / 64}  # scales are told with nf4 only
_PREVIEW_BYTES_PER_PIXEL = 2
"""PNG files of pictures that Stable Diffusion draws take between 1.4 and 1.9."""
_OVERHEAD_BYTES = {"gpu": 512 * 2**20, "cpu": 450 * 2**20}
"""CUDA's own memory; Python's with its libraries."""


@dataclass(frozen=True)
class Memory:
    """Estimated memory in bytes, by what takes it.

    Attributes:
        weights: of the model.
        lora: the LoRA's, its running mean among them.
        gradients: of the LoRA.
        optimizer: what it keeps of each weight.
        activations: what the forward pass keeps for the backward pass.
        cache: latents and embeddings; a GPU run keeps them in the machine's memory, where they do not count.
        overhead: what CUDA, or Python with its libraries, takes by itself.
    """

    weights: int
    lora: int
    gradients: int
    optimizer: int
    activations: int
    cache: int
    overhead: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def training_memory(
    config: Config,
    sizes: ModelSizes,
    largest_bucket_px: int,
    *,
    texts_rest: bool = False,
    on_gpu: bool = True,
    own_memory: bool = True,
    fused: bool = False,
    cache_bytes: int = 0,
    processes: int = 1,
) -> Memory:
    """Memory of a training step: of the GPU, or of the machine where the processor trains.

    The denoiser counts as quantised or in the compute precision, like the text encoders; the VAE, where pictures are
    not cached, in float32; the LoRA's gradients in float32. Activations: ``activations.py``; DoRA, LoHa and LoKr keep
    the changes of the weights for the backward pass besides, and a LoRA in float32 has its factors in 16 bits.

    Args:
        config: the run's settings.
        sizes: of the model.
        largest_bucket_px: pixels of the largest bucket.
        texts_rest: whether the text encoders have nothing to do, see ``TextPlan.texts_rest``; in the machine's memory
            they stay all the same where previews are drawn (``Config.keeps_parts``).
        on_gpu: whether a GPU trains.
        own_memory: whether it has memory of its own; Apple's share the machine's.
        fused: whether the layers of ``trainer.fused`` compute.
        cache_bytes: what is cached.
        processes: how many train together; the memory is that of one of them.
    """
    train, apart = config.train, on_gpu and own_memory
    full = train.mixed_precision == "no" or (not on_gpu and train.mixed_precision == "auto")
    per_cell = activation_bytes(sizes.units, config.lora.target, train.gradient_checkpointing, fused=fused and not full)
    cells = train.batch_size * largest_bucket_px / _LATENT_SCALE**2
    changes_are_kept = config.lora.type != "lora" and train.gradient_checkpointing != "all"
    changes = sizes.adapted * (4 if full else 2) if changes_are_kept else 0
    is_rounded = not full and config.lora.type == "lora" and train.lora_precision == "float32"
    kept = changes + sizes.lora * 2 * is_rounded
    number = 4 if full else 2
    away = apart or not config.keeps_parts
    texts = 0 if texts_rest and away else sizes.text * number
    vae = 0 if config.dataset.cache.latents and away else sizes.vae * 4
    return Memory(
        weights=_denoiser_bytes(config, sizes, number, processes, apart=apart) + texts + vae,
        lora=sizes.lora * (_weight_bytes(train) + (0 if train.ema is None else 4)),
        gradients=sizes.lora * 4,
        optimizer=sizes.lora * _optimizer_bytes(train),
        activations=int(cells * sizes.channels * per_cell * (_FLOAT32_FACTOR if full else 1)) + kept,
        cache=0 if apart else cache_bytes,
        overhead=_OVERHEAD_BYTES["gpu" if on_gpu else "cpu"],
    )


def _denoiser_bytes(config: Config, sizes: ModelSizes, number: int, processes: int, *, apart: bool) -> int:
    """Of its weights on the device; of what is offloaded or shared out two blocks are there at once."""
    model = config.model
    one = _QUANTIZED_BYTES.get(model.quantize, number)
    share = 1 / processes if model.share_out else 1 - model.offload * apart
    places = 2 * sizes.units.largest_block if share < 1 else 0
    return int((sizes.denoiser * share + places) * one)


class MemoryModel:
    """What a run on these pictures takes, for the settings as they are and for others that might fit better.

    Args:
        config: the run's settings; others may differ in what ``auto_fit`` changes.
        sizes: of the model.
        layout: of the pictures.
        on_gpu: whether a GPU trains.
        own_memory, fused: see ``training_memory``.
        processes: how many train together.
    """

    def __init__(
        self,
        config: Config,
        sizes: ModelSizes,
        layout: Layout,
        *,
        on_gpu: bool = True,
        own_memory: bool = True,
        fused: bool = False,
        processes: int = 1,
    ) -> None:
        self._sizes, self._layout, self._processes = sizes, layout, processes
        self._on_gpu, self._own_memory, self._fused = on_gpu, own_memory, fused
        self._largest_px = max(math.prod(entry.bucket) for entry in layout.training)
        self._known: dict[tuple[bool, bool], tuple[bool, int]] = {}

    def of(self, config: Config) -> Memory:
        """The memory of a run with these settings."""
        cache = config.dataset.cache
        known = self._known.get((cache.latents, cache.text))
        if known is None:
            texts = planned_texts(config, self._sizes, self._layout)
            cached = latent_bytes(config, self._layout) + (texts.bytes if texts.how == "beforehand" else 0)
            known = self._known[cache.latents, cache.text] = texts.texts_rest, cached
        texts_rest, cache_bytes = known
        return training_memory(
            config,
            self._sizes,
            self._largest_px,
            texts_rest=texts_rest,
            on_gpu=self._on_gpu,
            own_memory=self._own_memory,
            fused=self._fused,
            cache_bytes=cache_bytes,
            processes=self._processes,
        )


def _weight_bytes(train: TrainSettings) -> int:
    """Of each of the LoRA's weights."""
    return 4 if train.lora_precision == "float32" else 2


def _optimizer_bytes(train: TrainSettings) -> int:
    """Of the optimizer's state, for each weight; what is less than a number for each stays as it is."""
    full = _OPTIMIZER_BYTES[train.optimizer]
    return full if full < 4 or train.lora_precision == "float32" else full // 2


def disk_bytes(config: Config, sizes: ModelSizes, layout: Layout, texts: TextPlan) -> int:
    """Caches, previews, kept checkpoints and the finished file."""
    total = preview_bytes(config, _preview_times(config, layout))
    cache = config.dataset.cache
    if cache.to_disk:
        total += latent_bytes(config, layout) + (texts.bytes if texts.how == "beforehand" else 0)
    kept = config.output.keep_last + config.keeps_best
    return total + kept * checkpoint_bytes(config, sizes.lora) + lora_file_bytes(config, sizes.lora)


def lora_file_bytes(config: Config, weights: int) -> int:
    """Of a LoRA file with so many weights."""
    return weights * (4 if config.output.precision == "float" else 2)


def checkpoint_bytes(config: Config, weights: int) -> int:
    """Of a checkpoint of so many weights: LoRA file, weights, their running mean, and optimizer as they train."""
    train = config.train
    state = _weight_bytes(train) + _optimizer_bytes(train) + (0 if train.ema is None else 4)
    return lora_file_bytes(config, weights) + weights * state


def preview_bytes(config: Config, times: int) -> int:
    """Of previews of all prompts drawn so many times."""
    native = resolutions(config.dataset)[0]
    pixels = sum((prompt.width or native[0]) * (prompt.height or native[1]) for prompt in config.samples.prompts)
    return pixels * times * _PREVIEW_BYTES_PER_PIXEL


def _preview_times(config: Config, layout: Layout) -> int:
    batches = batches_per_epoch(layout.training, config.train.batch_size)
    steps = total_steps(config.train, batches)
    done = epochs_by(config, steps, batches)
    return rhythms_of(config).sampling.count_with_end(1, steps, done) + config.samples.at_start


def latent_bytes(config: Config, layout: Layout) -> int:
    """What cached latents take; 0 where they are not cached."""
    if not config.dataset.cache.latents:
        return 0
    pixels = [math.prod(entry.bucket) * _cached_forms(config, entry.picture.source) for entry in layout.training]
    pixels += [math.prod(entry.bucket) for entry in layout.validation]
    return sum(pixels) // _LATENT_SCALE**2 * _LATENT_CHANNELS * 4


def planned_texts(config: Config, sizes: ModelSizes, layout: Layout) -> TextPlan:
    """How the captions will be encoded, with embeddings of the size that the settings' precision gives on a GPU."""
    number_bytes = 4 if config.train.mixed_precision == "no" else 2
    row = embedding_bytes(config.dataset.captions, sizes.text_width, number_bytes)
    return text_plan(config, layout.training, layout.validation, row)


def _cached_forms(config: Config, source: int | None) -> int:
    """In how many forms a picture is cached, at most."""
    augment = config.dataset.augment_of(source)
    return (config.dataset.cache.variants if augment.changes_pixels else 1) * (2 if augment.flip else 1)


def work_per_step(config: Config) -> dict[str, object]:
    """What decides how long a step takes on a given machine."""
    return {
        "base": config.model.base,
        "quantize": config.model.quantize,
        "offload": config.model.offload,
        "share_out": config.model.share_out,
        "resolution": config.dataset.resolution,
        "train": config.train.model_dump(
            include={"batch_size", "gradient_accumulation_steps", "mixed_precision", "gradient_checkpointing"}
        ),
        "lora": config.lora.model_dump(include={"train", "target", "type"}),
        "preserved": config.loss.preserve is not None,
        "cached": config.dataset.cache.latents,
    }
