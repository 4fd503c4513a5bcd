"""The pre-flight: what a config would do, before it does it. Never torch, so that the page can ask quickly."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from trainer.accelerators import FEATURES, Kind
from trainer.auto_fit import Fitted, fit, memory_advice, what_if
from trainer.config import Config
from trainer.data.buckets import resolutions
from trainer.data.epoch import Layout, batches_per_epoch, lay_out, total_steps, views_per_bucket
from trainer.data.picture_notes import PictureNotes, take_notes
from trainer.data.text_plan import TextPlan
from trainer.device_needs import AnotherWay, other_ways, refusals
from trainer.errors import Problem, UserError
from trainer.estimates import Memory, MemoryModel, disk_bytes, planned_texts
from trainer.files import home_path
from trainer.fused import can_be_compiled
from trainer.measurements import Measured, measured
from trainer.model_sizes import ModelSizes, model_sizes
from trainer.optimizer_classes import optimizer_problems
from trainer.pace import Place, epochs_by, seconds_left, validation_guess
from trainer.plan_disk import disk_advice, free_for_run
from trainer.plan_fixes import Advice, Fix, Situation, with_fixes
from trainer.plan_pictures import PlacedPicture, placed_pictures
from trainer.plan_room import Room
from trainer.plan_warnings import about_processes, find_warnings
from trainer.runs.settings import read_settings
from trainer.runs.store import Workspace
from trainer.timeline import Timeline, timeline


@dataclass(frozen=True)
class Bucket:
    """One row of the bucket table. ``views`` counts repeats; ``cropped_share`` is the mean over its pictures."""

    width: int
    height: int
    pictures: int
    views: int
    batches: int
    cropped_share: float


@dataclass(frozen=True)
class Estimate:
    """What the run will need.

    Attributes:
        vram_bytes: memory of the GPU, or of the machine where it has none.
        vram_parts: the same by what takes it.
        vram_note: where the figure comes from.
        measured_bytes: what PyTorch held at most in a run of the same settings on this GPU; None where none was made.
        room: what there is; None where it was not looked at.
        fits: whether it fits; None without room.
        disk_bytes: caches, checkpoints and the finished file.
        disk_free_bytes: on the workspace's disk; None without workspace.
        seconds: of all of it; None where neither a former run nor a measurement tells.
        seconds_note: where the figure comes from.
    """

    vram_bytes: int
    vram_parts: Memory
    vram_note: str
    measured_bytes: int | None
    room: Room | None
    fits: bool | None
    disk_bytes: int
    disk_free_bytes: int | None
    seconds: float | None
    seconds_note: str


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        pictures: trained on, regularization pictures not among them.
        regularization_pictures: trained on beside them.
        validation_pictures: held back.
        views_per_epoch: pictures seen in an epoch, repeats and resolutions counted.
        buckets: by size.
        batches_per_epoch: micro-batches, short ones included.
        steps_per_epoch: optimizer steps; a fraction where gradient accumulation does not divide the batches.
        max_steps: optimizer steps of the run.
        epochs: passes over the pictures that they come to.
        captions: how they are encoded: all before training, or when they come.
        arithmetic: ``24 pictures x 10 repeats / 4 = 60 steps an epoch``.
        notes: pictures worth a look.
        timeline: what happens when, and the learning rate.
        estimate: memory, disk and time.
        what_if: memory with other batch sizes, checkpointing and quantisation, see ``auto_fit.what_if``.
        warnings: what should be looked at before starting, with what mends it.
        fitted: settings that fit the memory, where that was asked for.
        placed: every picture, where that was asked for.
    """

    pictures: int
    regularization_pictures: int
    validation_pictures: int
    views_per_epoch: int
    buckets: list[Bucket]
    batches_per_epoch: int
    steps_per_epoch: float
    max_steps: int
    epochs: float
    arithmetic: str
    captions: str
    notes: PictureNotes
    timeline: Timeline
    estimate: Estimate
    what_if: list[dict[str, Any]]
    warnings: list[Advice]
    fitted: Fitted | None = None
    placed: list[PlacedPicture] | None = None


def plan(
    config: Config,
    workspace: Workspace | None = None,
    room: Room | None = None,
    *,
    fitted: bool = False,
    pictures: bool = False,
    processes: int = 1,
    kind: Kind | None = None,
) -> Plan:
    """Count, place and estimate; only picture headers and captions are read.

    Args:
        config: the run's settings.
        workspace: where former runs tell how long a step takes, and what disk there is; without it there is no time
            estimate.
        room: the memory that a run will find; without it nothing is said of whether it fits.
        fitted: also look for settings that fit into ``room``.
        pictures: also tell where each picture comes.
        processes: how many train together, each on its share of a batch; memory is that of one of them.
        kind: what computes, to say what it lacks; without it nothing is said of that.

    Raises:
        UserError: folders missing or empty, a base that cannot be a model, an optimizer that is not installed or not
            allowed, or what the device cannot do; all problems at once.
    """
    layout, sizes = _both(config, workspace, kind)
    train = config.train
    batches = batches_per_epoch(layout.training, train.batch_size * processes)
    steps = total_steps(train, batches)
    texts = planned_texts(config, sizes, layout)
    on_gpu, own_memory = room is None or room.on_gpu, kind is None or FEATURES[kind].own_memory
    memory = MemoryModel(
        config,
        sizes,
        layout,
        on_gpu=on_gpu,
        own_memory=own_memory,
        fused=kind is not None and FEATURES[kind].fused_layers and can_be_compiled(),
        processes=processes,
    )
    estimate = _estimate(config, layout, sizes, texts, memory.of(config), (steps, batches), workspace, room)
    situation = Situation(config, layout, take_notes(config, layout), steps, batches)
    found = [*find_warnings(situation, sizes), *about_processes(config, processes)]
    warnings = [with_fixes(each, situation) for each in found]
    if kind is not None:
        warnings = [*(_without(each) for each in other_ways(config, kind)), *warnings]
    if room is not None:
        warnings = [*memory_advice(config, memory, layout, room), *warnings]
    if estimate.disk_free_bytes is not None:
        warnings += disk_advice(config, sizes, layout, texts, estimate.disk_free_bytes)
    return Plan(
        pictures=_count(layout, regularization=False),
        regularization_pictures=_count(layout, regularization=True),
        validation_pictures=len({entry.picture.key for entry in layout.validation}),
        views_per_epoch=sum(entry.repeats for entry in layout.training),
        buckets=_bucket_table(layout, train.batch_size * processes),
        batches_per_epoch=batches,
        steps_per_epoch=_steps_per_epoch(config, batches),
        max_steps=steps,
        epochs=round(steps * train.gradient_accumulation_steps / batches, 2),
        arithmetic=arithmetic(config, layout, processes),
        captions=texts.in_words(),
        notes=situation.notes,
        timeline=timeline(config, steps, batches, validates=bool(layout.validation)),
        estimate=estimate,
        what_if=what_if(config, memory, room),
        warnings=warnings,
        fitted=fit(config, memory, layout, room) if fitted and room is not None else None,
        placed=placed_pictures(layout) if pictures else None,
    )


def arithmetic(config: Config, layout: Layout, processes: int = 1) -> str:
    """How the steps of an epoch come about, in one line."""
    train = config.train
    groups = Counter((entry.picture.is_regularization, entry.repeats) for entry in layout.training)
    sides = len(resolutions(config.dataset))
    terms = [
        f"{_plural(count // sides, 'regularization picture' if prior else 'picture')} x {_plural(repeats, 'repeat')}"
        for (prior, repeats), count in sorted(groups.items())
    ]
    views = " + ".join(terms) if len(terms) == 1 else f"({' + '.join(terms)})"
    if sides > 1:
        views += f" x {sides} resolutions"
    factors = [str(train.batch_size)]
    factors += [f"{processes} processes"] if processes > 1 else []
    factors += [str(train.gradient_accumulation_steps)] if train.gradient_accumulation_steps > 1 else []
    divisor = f"({' x '.join(factors)})" if len(factors) > 1 else factors[0]
    together = train.batch_size * processes
    batches = batches_per_epoch(layout.training, together)
    steps = _steps_per_epoch(config, batches)
    line = f"{views} / {divisor} = {steps:g} {'step' if steps == 1 else 'steps'} an epoch"
    short = batches - sum(count // together for count in views_per_bucket(layout.training).values())
    return f"{line}, {_plural(short, 'short batch', 'short batches')} included" if short else line


def _both(config: Config, workspace: Workspace | None, kind: Kind | None) -> tuple[Layout, ModelSizes]:
    problems: list[Problem] = []
    layout: Layout | None = None
    sizes: ModelSizes | None = None
    try:
        layout = lay_out(config)
    except UserError as error:
        problems += error.problems
    try:
        sizes = model_sizes(config.model, config.lora)
    except UserError as error:
        problems += error.problems
    if kind is not None:
        problems += refusals(config, kind)
    if workspace is not None:
        problems += optimizer_problems(config.train, read_settings(workspace).allowed_optimizers)
    if problems or layout is None or sizes is None:
        raise UserError.many(problems)
    return layout, sizes


def _without(way: AnotherWay) -> Advice:
    """What the device does another way, as a warning that goes with the settings that say so."""
    return Advice(way.code, way.message, way.hint, way.field, [Fix("Set what is done anyhow", way.changes)])


def _count(layout: Layout, *, regularization: bool) -> int:
    return len({entry.picture.key for entry in layout.training if entry.picture.is_regularization == regularization})


def _steps_per_epoch(config: Config, batches: int) -> float:
    return round(batches / config.train.gradient_accumulation_steps, 2)


def _bucket_table(layout: Layout, batch_size: int) -> list[Bucket]:
    rows = []
    for bucket, views in views_per_bucket(layout.training).items():
        inside = [entry for entry in layout.training if entry.bucket == bucket]
        rows.append(
            Bucket(
                width=bucket[0],
                height=bucket[1],
                pictures=len({entry.picture.key for entry in inside}),
                views=views,
                batches=math.ceil(views / batch_size),
                cropped_share=round(sum(entry.placement.cropped_share for entry in inside) / len(inside), 4),
            )
        )
    return rows


def _estimate(
    config: Config,
    layout: Layout,
    sizes: ModelSizes,
    texts: TextPlan,
    memory: Memory,
    steps_and_batches: tuple[int, int],
    workspace: Workspace | None,
    room: Room | None,
) -> Estimate:
    found = measured(config, workspace) if workspace else None
    if found:
        seconds, note = (
            _seconds(config, found, *steps_and_batches, layout),
            f"{found.costs.step * 1000:.0f} ms a step, measured {found.source}",
        )
    else:
        seconds, note = None, "not known before a run with these settings was made on this machine"
    source = "the model's files" if sizes.known else f"{sizes.name}, as the model was not looked into yet"
    return Estimate(
        vram_bytes=memory.total,
        vram_parts=memory,
        vram_note=f"by formula from the sizes of {source}",
        room=room,
        measured_bytes=found.memory_bytes if found else None,
        fits=room.holds(memory.total) if room else None,
        disk_bytes=disk_bytes(config, sizes, layout, texts),
        disk_free_bytes=free_for_run(workspace.dir, home_path(config.model.base)) if workspace else None,
        seconds=seconds,
        seconds_note=note,
    )


def _seconds(config: Config, found: Measured, steps: int, batches: int, layout: Layout) -> float:
    """Of all steps and what comes between them, validation guessed where the measured run had none like it."""
    costs = found.costs
    if costs.validation is None:
        guess = validation_guess(config, costs.step, len(layout.validation))
        costs = replace(costs, validation=guess)
    return seconds_left(config, costs, Place(), steps, epochs_by(config, steps, batches))


def _plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
