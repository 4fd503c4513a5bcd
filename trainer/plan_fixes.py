"""What mends a plan's warnings: changes of the config that a person may take with one click. Never torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from trainer.config import Config
from trainer.config_dataset import CaptionLength
from trainer.config_io import parse_config
from trainer.data.buckets import Placement, place
from trainer.data.epoch import Entry, Layout, views_per_bucket
from trainer.data.folders import repeats_folder
from trainer.data.picture_notes import (
    HEAVY_CROP_SHARE,
    SMALL_AREA_SHARE,
    PictureNotes,
    caption_tokens,
    enlargement,
)
from trainer.errors import Problem

_SMALLER_STEPS = (32, 16, 8)
_LEAST_SIDE = 256


@dataclass(frozen=True)
class Fix:
    """One way to mend a warning.

    Attributes:
        label: what is done, as on a button.
        changes: new values by dotted config name.
        cost: what it costs, as a clause; empty for nothing.
    """

    label: str
    changes: dict[str, Any]
    cost: str = ""


@dataclass(frozen=True)
class Advice(Problem):
    """A warning of the plan, and what mends it."""

    fixes: list[Fix] = field(default_factory=list)


@dataclass(frozen=True)
class Situation:
    """What fixes are found from."""

    config: Config
    layout: Layout
    notes: PictureNotes
    steps: int
    batches: int


def with_fixes(problem: Problem, situation: Situation) -> Advice:
    """The warning with what mends it; nothing is offered that would not."""
    finder = _FINDERS.get(problem.code)
    fixes = list(finder(situation, problem)) if finder else []
    return Advice(problem.code, problem.message, problem.hint, problem.field, fixes)


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config with other values by dotted name. Raises UserError for what it does not allow."""
    values = config.model_dump(mode="json")
    for name, value in changes.items():
        *parents, last = name.split(".")
        target: Any = values
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        target[last] = value
    return parse_config(values)


def values_at(config: Config, names: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a config under dotted names: what takes ``changed`` back."""
    plain = config.model_dump(mode="json")
    return {name: _value_at(plain, name) for name in names}


def _value_at(plain: Any, name: str) -> Any:
    for part in name.split("."):
        plain = plain[int(part)] if isinstance(plain, list) else plain[part]
    return plain


def accumulation_fix(config: Config, batch_size: int) -> dict[str, int]:
    """Batches of this size, with as many pictures a step as before."""
    effective = config.train.batch_size * config.train.gradient_accumulation_steps
    return {"train.batch_size": batch_size, "train.gradient_accumulation_steps": effective // batch_size}


def _heavy_crop(situation: Situation, problem: Problem) -> Iterator[Fix]:
    buckets = situation.config.dataset.buckets
    for step in (buckets.step, *(each for each in _SMALLER_STEPS if each < buckets.step)):
        changes: dict[str, Any] = {} if buckets.enabled else {"dataset.buckets.enabled": True}
        if step != buckets.step:
            changes["dataset.buckets.step"] = step
        if changes and not any(_is_cropped(placed) for placed in _placed_with(situation, changes)):
            label = f"Bucket sides in steps of {step}" if step != buckets.step else "Use buckets"
            yield Fix(label, changes, "more buckets, with fewer pictures each")
            return


def _enlarged(situation: Situation, problem: Problem) -> Iterator[Fix]:
    changes = {"dataset.buckets.enabled": True, "dataset.buckets.upscale": False}
    entries = _entries(situation)
    placed = _placed_with(situation, changes)
    if not any(enlargement(each.picture, new) > 1 for each, new in zip(entries, placed, strict=True)):
        yield Fix("Leave small pictures as they are", changes, "they are trained in smaller buckets of their own")


def _small(situation: Situation, problem: Problem) -> Iterator[Fix]:
    side = situation.config.dataset.resolution
    if not isinstance(side, int):
        return
    for lower in range(side - 64, _LEAST_SIDE - 1, -64):
        changes = {"dataset.resolution": lower}
        placed = _placed_with(situation, changes)
        if all(each.width * each.height >= SMALL_AREA_SHARE * lower * lower for each in placed):
            yield Fix(f"Train at {lower} pixels", changes, "less detail is learned from the large pictures")
            return


def _no_caption(situation: Situation, problem: Problem) -> Iterator[Fix]:
    config, trigger = situation.config, situation.config.output.trigger
    missing = {each.picture.source for each in _entries(situation) if not each.picture.has_caption}
    if trigger and None not in missing:
        changes = {f"dataset.sources.{number}.class_prompt": trigger for number in sorted(missing, key=str)}
        if all(config.dataset.sources[number].class_prompt is None for number in missing if number is not None):
            yield Fix(f"Caption them with {trigger!r}", changes, "everything in them is learned as that word")


def _long_caption(situation: Situation, problem: Problem) -> Iterator[Fix]:
    pictures = {each.picture.key: each.picture for each in _entries(situation)}.values()
    longest = max(caption_tokens(situation.config, picture) for picture in pictures)
    fitting = [length for length in get_args(CaptionLength) if length >= longest]
    if fitting:
        changes = {"dataset.captions.max_token_length": fitting[0]}
        yield Fix(f"Read {fitting[0]} tokens", changes, "a step takes a little longer")


def _unused_trigger(situation: Situation, problem: Problem) -> Iterator[Fix]:
    captions, trigger = situation.config.dataset.captions, situation.config.output.trigger
    if any("prefix" not in source.captions for source in situation.config.dataset.sources):
        prefix = f"{trigger}, {captions.prefix}" if captions.prefix else str(trigger)
        yield Fix(f"Put {trigger!r} in front of every caption", {"dataset.captions.prefix": prefix})


def _repeats_folder(situation: Situation, problem: Problem) -> Iterator[Fix]:
    number = int(problem.field.split(".")[2])
    found = repeats_folder(Path(situation.config.dataset.sources[number].path).name)
    if found and found[0] > 1:
        changes = {f"dataset.sources.{number}.repeats": found[0]}
        yield Fix(f"Repeat its pictures {found[0]} times", changes, f"an epoch is {found[0]} times as long")


def _thin_buckets(situation: Situation, problem: Problem) -> Iterator[Fix]:
    size = situation.config.train.batch_size
    thinnest = min(views_per_bucket(situation.layout.training).values())
    smaller = max(each for each in range(1, size) if size % each == 0 and each <= thinnest)
    changes = accumulation_fix(situation.config, smaller)
    yield Fix(f"Batches of {smaller}, as many pictures a step", changes, "a step takes somewhat longer")


def _less_than_an_epoch(situation: Situation, problem: Problem) -> Iterator[Fix]:
    needed = math.ceil(situation.batches / situation.config.train.gradient_accumulation_steps)
    times = needed / situation.steps
    yield Fix(f"Train {needed} steps", {"train.max_steps": needed}, f"the run takes {times:.2g} times as long")


def _warmup(situation: Situation, problem: Problem) -> Iterator[Fix]:
    steps = situation.steps // 10
    yield Fix(f"Warm up over {steps} steps", {"train.lr_warmup_steps": steps})


_FINDERS: dict[str, Callable[[Situation, Problem], Iterator[Fix]]] = {
    "dataset.heavy_crop": _heavy_crop,
    "dataset.enlarged": _enlarged,
    "dataset.small": _small,
    "dataset.no_caption": _no_caption,
    "dataset.long_caption": _long_caption,
    "output.trigger_unused": _unused_trigger,
    "dataset.repeats_folder": _repeats_folder,
    "dataset.thin_buckets": _thin_buckets,
    "train.less_than_an_epoch": _less_than_an_epoch,
    "train.warmup": _warmup,
    "validation.nothing": lambda *_: iter([Fix("Hold nothing back", {"validation.split": 0})]),
    "train.nothing_learns": lambda *_: iter([Fix("Learning rate 1e-4", {"train.learning_rate": 1e-4})]),
    "optimizer.own_rate": lambda *_: iter([Fix("Learning rate 1", {"train.learning_rate": 1})]),
}
"""By the warning's code. Those that no setting mends are not here, and memory and disk have theirs in ``auto_fit``."""


def _entries(situation: Situation) -> list[Entry]:
    return [*situation.layout.training, *situation.layout.validation]


def _placed_with(situation: Situation, changes: Mapping[str, Any]) -> list[Placement]:
    """Where every entry would come with other settings."""
    dataset = changed(situation.config, changes).dataset
    resolution = dataset.resolution
    return [
        place(
            entry.picture.width,
            entry.picture.height,
            dataset,
            (resolution, resolution) if isinstance(resolution, int) else entry.resolution,
        )
        for entry in _entries(situation)
    ]


def _is_cropped(placed: Placement) -> bool:
    return placed.cropped_share > HEAVY_CROP_SHARE
