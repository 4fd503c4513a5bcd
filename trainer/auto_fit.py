"""Fitting a run into memory without changing what it learns beyond rounding. Never torch.

The levers are batch size (against gradient accumulation, so that a step sees as many pictures as before), caching,
gradient checkpointing, how the frozen model, and then the LoRA, are rounded, and at last how much of the model lies in
the machine's memory. What rounds less is tried first; among settings that round alike the fastest that fits is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from trainer.config import Config, Quantize
from trainer.config_training import OWN_RATE, Checkpointing
from trainer.data.epoch import Layout, views_per_bucket
from trainer.estimates import MemoryModel
from trainer.plan_fixes import Advice, Fix, accumulation_fix, changed
from trainer.plan_room import Room

BATCH, ACCUMULATION = "train.batch_size", "train.gradient_accumulation_steps"
CHECKPOINTING = "train.gradient_checkpointing"
PRECISION, QUANTIZE, LORA_PRECISION = "train.mixed_precision", "model.quantize", "train.lora_precision"
OFFLOAD = "model.offload"
CACHE_LATENTS, CACHE_TEXT = "dataset.cache.latents", "dataset.cache.text"

# Relative times of a step, only to put choices in order: checkpointing computes the forward pass twice, a third of the
# work again, or the feed-forward layers' part of it; small batches use a GPU less well; packed weights are unpacked in
# both passes, nf4 through a table.
_CHECKPOINTING_TIME: dict[Checkpointing, float] = {"off": 1.0, "some": 1.12, "all": 4 / 3}
_SMALL_BATCH_TIME = 0.3
_QUANTIZED_TIME: dict[Quantize, float] = {"none": 1.0, "int8": 1.15, "fp8": 1.15, "nf4": 1.4}
_OFFLOADED = (0.5, 1.0)
"""Shares of the denoiser that are tried, where nothing else fits: each step then copies them twice."""
_OFFLOADED_TIME = 1.0  # what a whole denoiser's copies add to a step
_GIB = 2**30


@dataclass(frozen=True)
class FitStep:
    """One change that was made, what for, and what the whole takes with it and those before it."""

    label: str
    reason: str
    changes: dict[str, Any]
    bytes_after: int


@dataclass(frozen=True)
class Fitted:
    """The outcome: changes to the settings, in steps; ``fits`` is False where even the smallest is too large."""

    fits: bool
    bytes_before: int
    bytes_after: int
    usable_bytes: int
    changes: dict[str, Any]
    steps: list[FitStep]


def fit(config: Config, memory: MemoryModel, layout: Layout, room: Room) -> Fitted:
    """The settings that fit: those that round least, and of these the fastest. Always the same for the same input."""
    choices = list(_choices(config, layout, offloads=room.on_gpu))
    fitting = [each for each in choices if room.holds(memory.of(changed(config, each)).total)]
    if fitting:
        best = min(
            fitting, key=lambda each: (_rounding(config, each), _time(config, each), _changes_made(config, each))
        )
    else:
        best = min(choices, key=lambda each: memory.of(changed(config, each)).total)
    steps = list(_explained(config, best, memory))
    before = memory.of(config).total
    return Fitted(
        fits=bool(fitting),
        bytes_before=before,
        bytes_after=steps[-1].bytes_after if steps else before,
        usable_bytes=room.usable_bytes,
        changes={name: value for step in steps for name, value in step.changes.items()},
        steps=steps,
    )


def memory_advice(config: Config, memory: MemoryModel, layout: Layout, room: Room) -> list[Advice]:
    """What is said of a run that takes more memory than there is, with each change that alone makes it fit."""
    needed = memory.of(config).total
    if room.holds(needed):
        return []
    fitted = fit(config, memory, layout, room)
    message = (
        f"The run needs about {needed / _GIB:.1f} GiB of memory, and {room.name} has "
        f"{room.free_bytes / _GIB:.1f} GiB free, of which a twentieth should stay so."
    )
    fixes = [each for each in _single_fixes(config) if room.holds(memory.of(changed(config, each.changes)).total)]
    if fitted.fits and not any(each.changes == fitted.changes for each in fixes):
        labels = "; ".join(step.label.lower() for step in fitted.steps)
        fixes.append(Fix(f"Fit it: {labels}", fitted.changes, "; ".join(step.reason for step in fitted.steps)))
    if fitted.fits:
        hint = "It would end for lack of memory."
    else:
        least = f"Even fitted it takes about {fitted.bytes_after / _GIB:.1f} GiB"
        hint = f"{least}: lower dataset.resolution or lora.rank, or close other programs."
    return [Advice("memory.too_little", message, hint, CHECKPOINTING, fixes)]


def what_if(config: Config, memory: MemoryModel, room: Room | None) -> list[dict[str, Any]]:
    """Memory for every combination of batch size, checkpointing and quantisation, as a table to choose from.

    Each row: ``batch_size``, ``checkpointing``, ``quantize``, ``bytes``, ``fits`` (None where the memory is not known),
    ``chosen`` for the settings as they are, and the ``changes`` that lead there.
    """
    train = config.train
    effective = train.batch_size * train.gradient_accumulation_steps
    sizes = sorted({1, 2, 4, train.batch_size})
    rows = []
    for quantize, checkpointing, size in itertools.product(_kinds(config), get_args(Checkpointing), sizes):
        accumulation = effective // size if effective % size == 0 else 1
        changes = {BATCH: size, ACCUMULATION: accumulation, CHECKPOINTING: checkpointing, QUANTIZE: quantize}
        needed = memory.of(changed(config, changes)).total
        rows.append(
            {
                "batch_size": size,
                "checkpointing": checkpointing,
                "quantize": quantize,
                "bytes": needed,
                "fits": room.holds(needed) if room else None,
                "chosen": (size, checkpointing, quantize)
                == (train.batch_size, train.gradient_checkpointing, config.model.quantize),
                "changes": changes,
            }
        )
    return rows


def _choices(config: Config, layout: Layout, *, offloads: bool) -> Iterator[dict[str, Any]]:
    """Every combination of the levers, as changes to the config."""
    train = config.train
    precisions = ["no", "auto"] if train.mixed_precision == "no" else [train.mixed_precision]
    combinations = itertools.product(
        (0.0, *_OFFLOADED) if offloads and not config.model.share_out else (config.model.offload,),
        precisions,
        _kinds(config),
        _lora_precisions(config),
        get_args(Checkpointing),
        _batch_sizes(config, layout),
    )
    for offload, precision, quantize, lora_precision, checkpointing, size in combinations:
        yield {
            **_caches(config),
            **accumulation_fix(config, size),
            CHECKPOINTING: checkpointing,
            PRECISION: precision,
            QUANTIZE: quantize,
            LORA_PRECISION: lora_precision,
            OFFLOAD: offload,
        }


def _kinds(config: Config) -> tuple[Quantize, ...]:
    """From none to most rounding. int8 is nearer to the weights than fp8, and as small."""
    return "none", "fp8" if config.model.quantize == "fp8" else "int8", "nf4"


def _batch_sizes(config: Config, layout: Layout) -> list[int]:
    """Divisors of the pictures a step: smaller than now, or larger where no bucket's last batch would come short.

    A short batch counts as much as a full one, so more of them would change what is learned.
    """
    now = config.train.batch_size
    effective = now * config.train.gradient_accumulation_steps
    views = list(views_per_bucket(layout.training).values())
    return [
        size
        for size in range(1, effective + 1)
        if effective % size == 0 and (size <= now or all(count % size == 0 for count in views))
    ]


def _lora_precisions(config: Config) -> list[str]:
    given = config.train.lora_precision
    keeps = given != "float32" or config.train.optimizer in (*OWN_RATE, "schedule_free_adamw")
    return [given] if keeps else [given, "bf16"]


def _caches(config: Config) -> dict[str, Any]:
    """Caches that change nothing but time and memory."""
    dataset = config.dataset
    varied = any(dataset.augment_of(number).changes_pixels for number in range(len(dataset.sources)))
    latents = {} if dataset.cache.latents or varied else {CACHE_LATENTS: True}
    text = {} if dataset.cache.text or config.lora.train != "unet" else {CACHE_TEXT: True}
    return {**latents, **text}


def _rounding(config: Config, choice: dict[str, Any]) -> tuple[float, ...]:
    """How much more is offloaded, then rounded; the LoRA itself counts most."""
    return (
        choice[OFFLOAD],
        int(choice[LORA_PRECISION] != config.train.lora_precision),
        _kinds(config).index(choice[QUANTIZE]),
        int(choice[PRECISION] != config.train.mixed_precision),
    )


def _time(config: Config, choice: dict[str, Any]) -> float:
    pictures = choice[BATCH] * choice[ACCUMULATION]
    batches = pictures * (1 + _SMALL_BATCH_TIME / choice[BATCH])
    once = _CHECKPOINTING_TIME[choice[CHECKPOINTING]] * _QUANTIZED_TIME[choice[QUANTIZE]]
    return batches * (once + _OFFLOADED_TIME * choice[OFFLOAD])


def _changes_made(config: Config, choice: dict[str, Any]) -> int:
    return len(_steps(config, choice))


def _explained(config: Config, choice: dict[str, Any], memory: MemoryModel) -> Iterator[FitStep]:
    for fix in _steps(config, choice):
        config = changed(config, fix.changes)
        yield FitStep(fix.label, fix.cost, fix.changes, memory.of(config).total)


def _single_fixes(config: Config) -> Iterator[Fix]:
    """Levers one at a time, the least slow first."""
    train = config.train
    whole: dict[str, Any] = {
        BATCH: train.batch_size,
        ACCUMULATION: train.gradient_accumulation_steps,
        CHECKPOINTING: train.gradient_checkpointing,
        PRECISION: train.mixed_precision,
        QUANTIZE: config.model.quantize,
        LORA_PRECISION: train.lora_precision,
        OFFLOAD: config.model.offload,
    }
    smaller = [size for size in range(train.batch_size - 1, 0, -1) if train.batch_size % size == 0]
    tries: list[dict[str, Any]] = [_caches(config)]
    tries += [accumulation_fix(config, size) for size in smaller]
    parts = get_args(Checkpointing)
    tries += [{CHECKPOINTING: more} for more in parts[parts.index(train.gradient_checkpointing) + 1 :]]
    tries += [{PRECISION: "auto"}] if train.mixed_precision == "no" else []
    kinds = _kinds(config)
    tries += [{QUANTIZE: kind} for kind in kinds[kinds.index(config.model.quantize) + 1 :]]
    if not config.model.share_out:
        tries += [{OFFLOAD: share} for share in _OFFLOADED if share > config.model.offload]
    for changes in tries:
        yield from _steps(config, {**whole, **changes})


def _steps(config: Config, choice: dict[str, Any]) -> list[Fix]:
    """The changes of a choice that differ from the config, each with its words."""
    train = config.train
    steps = []
    caches = {name: value for name, value in choice.items() if name in (CACHE_LATENTS, CACHE_TEXT)}
    if caches:
        steps.append(Fix("Cache pictures and captions", caches, "encoded once, before training, which is faster too"))
    if choice[BATCH] != train.batch_size:
        size, accumulation = choice[BATCH], choice[ACCUMULATION]
        speed = "somewhat slower" if size < train.batch_size else "somewhat faster"
        label = f"Batches of {size}, {accumulation} added up" if accumulation > 1 else f"Batches of {size}"
        steps.append(
            Fix(label, {BATCH: size, ACCUMULATION: accumulation}, f"as many pictures a step as before, {speed}")
        )
    if choice[CHECKPOINTING] != train.gradient_checkpointing:
        steps.append(_checkpointing_step(choice[CHECKPOINTING], train.gradient_checkpointing))
    if choice[PRECISION] != train.mixed_precision:
        steps.append(Fix("Compute in 16 bits", {PRECISION: choice[PRECISION]}, "rounds more, and is faster on a GPU"))
    if choice[QUANTIZE] != config.model.quantize:
        steps.append(_quantize_step(choice[QUANTIZE]))
    if choice[LORA_PRECISION] != train.lora_precision:
        cost = "its small changes are rounded by chance"
        steps.append(Fix("Keep the LoRA in bf16", {LORA_PRECISION: choice[LORA_PRECISION]}, cost))
    if choice[OFFLOAD] != config.model.offload:
        steps.append(_offload_step(choice[OFFLOAD]))
    return steps


def _offload_step(share: float) -> Fix:
    if not share:
        return Fix("Keep the whole model on the GPU", {OFFLOAD: share}, "there is room for it, and a step is faster")
    cost = "it comes block by block, exactly as it is, and a step takes much longer"
    return Fix(f"Leave {share:.0%} of the model in the machine's memory", {OFFLOAD: share}, cost)


def _checkpointing_step(wanted: Checkpointing, now: Checkpointing) -> Fix:
    labels: dict[Checkpointing, str] = {
        "off": "Turn off gradient checkpointing",
        "some": "Gradient checkpointing for some layers",
        "all": "Gradient checkpointing for all layers",
    }
    ratio = _CHECKPOINTING_TIME[wanted] / _CHECKPOINTING_TIME[now] - 1
    share = f"about {round(abs(ratio) * 100)} %"
    cost = f"a step takes {share} longer" if ratio > 0 else f"there is room for it, and a step takes {share} less"
    return Fix(labels[wanted], {CHECKPOINTING: wanted}, cost)


def _quantize_step(kind: Quantize) -> Fix:
    if kind == "none":
        return Fix("Do not quantise the model", {QUANTIZE: kind}, "there is room for it: exact, and faster")
    bits, longer = (4, "longer") if kind == "nf4" else (8, "somewhat longer")
    cost = f"the frozen model is rounded to {bits} bits, and a step takes {longer}"
    return Fix(f"Quantise the frozen model to {kind}", {QUANTIZE: kind}, cost)
