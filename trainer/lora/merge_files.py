"""LoRA files merged into a LoRA file: reading, checking, merging, writing; or only telling what that would give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainer.errors import UserError
from trainer.lora.file import LoraFile, Precision, read_lora, widest_precision, write_lora
from trainer.lora.hashes import file_sha256
from trainer.lora.inspect import family_of
from trainer.lora.merge import BaseWeight, MergeSource, PlannedLayer, merge_loras, plan_layers
from trainer.lora.merge_modes import Combiner
from trainer.lora.merge_settings import MergeSettings
from trainer.lora.outputs import lora_file_problems
from trainer.lora.strengths import Strength
from trainer.lora.tensor_file import DTYPES
from trainer.runs.events import EventSink


@dataclass(frozen=True)
class LoraMerge:
    """A merge that is asked for.

    Attributes:
        loras: files and how much of each is wanted.
        out: the file to write.
        settings: the mode and what belongs to it.
        save_precision: number format to write; None: that of the inputs, in mode ``kohya`` that of its sums.
        dora_base: model that DoRAs were made for: ``demo``, a folder, a file or a hub id.
        device: where decompositions are computed.
        overwrite: whether ``out`` may exist.
    """

    loras: Sequence[tuple[Path, Strength]]
    out: Path
    settings: MergeSettings = field(default_factory=MergeSettings)
    save_precision: Precision | None = None
    dora_base: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    overwrite: bool = False


def merge_lora_files(wanted: LoraMerge, *, events: EventSink) -> dict[str, Any]:
    """Write the merged file and tell what is in it. Raises UserError, with every problem, and then writes nothing."""
    sources = _read(wanted, events)
    precision = _precision(wanted, [source.lora for source in sources])
    with _base(wanted, sources, events) as base:
        merged = merge_loras(
            sources,
            wanted.settings,
            device=wanted.device,
            base_weight=base,
            dtype=torch.float32,
            report=lambda done, total: events.emit("progress", what="merging", done=done, total=total),
        )
    events.emit("progress", what="writing", done=0, total=1)
    write_lora(wanted.out, merged, precision=precision)
    events.emit("progress", what="writing", done=1, total=1)
    return {
        **_answer(wanted, sources, precision),
        "layers": len(merged.layers),
        "ranks": sorted({layer.rank for layer in merged.layers.values()}),
        "size_bytes": wanted.out.stat().st_size,
    }


def plan_lora_merge(wanted: LoraMerge, *, events: EventSink) -> dict[str, Any]:
    """What ``merge_lora_files`` would do. Nothing is computed or written. Raises UserError as it would."""
    sources = _read(wanted, events)
    precision = _precision(wanted, [source.lora for source in sources])
    with _base(wanted, sources, events):
        plan = plan_layers(sources, wanted.settings, has_base=wanted.dora_base is not None)
    combiner = Combiner(wanted.settings)
    ranks = {layer.module: combiner.result_rank(layer.parts, layer.shape) for layer in plan}
    return {
        **_answer(wanted, sources, precision),
        "dry_run": True,
        "layers": len(plan),
        "ranks": sorted(set(ranks.values())),
        "size_bytes": sum(_numbers(layer, ranks[layer.module]) for layer in plan) * DTYPES[precision].itemsize,
        "shared_layers": sum(len(layer.parts) > 1 for layer in plan),
    }


def _read(wanted: LoraMerge, events: EventSink) -> list[MergeSource]:
    """Read the files. Raises UserError with all that is wrong with the files, the settings and the place to write."""
    problems = lora_file_problems(wanted.out, [path for path, _ in wanted.loras], overwrite=wanted.overwrite)
    try:
        wanted.settings.check()
    except UserError as error:
        problems += error.problems
    sources = []
    for number, (path, strength) in enumerate(wanted.loras):
        events.emit("progress", what="reading", done=number, total=len(wanted.loras))
        try:
            lora = read_lora(path)
            strength.check(lora.layers, path.name)
            sources.append(MergeSource(lora, strength, path.name, file_sha256(path)))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError.many(problems)
    return sources


def _precision(wanted: LoraMerge, loras: list[LoraFile]) -> Precision:
    if wanted.save_precision is not None:
        return wanted.save_precision
    return wanted.settings.precision if wanted.settings.mode == "kohya" else widest_precision(loras)


@contextmanager
def _base(wanted: LoraMerge, sources: list[MergeSource], events: EventSink) -> Iterator[BaseWeight | None]:
    """The model that DoRAs were made for. Raises UserError when it is none, or not theirs."""
    if wanted.dora_base is None:
        yield None
        return
    from trainer.lora.base_weights import open_base_weights  # it loads transformers, for seconds, and few need it

    with open_base_weights(wanted.dora_base, field="dora_base", events=events) as weights:
        weights.check(sources)
        yield weights


def _answer(wanted: LoraMerge, sources: list[MergeSource], precision: Precision) -> dict[str, Any]:
    return {
        "out": str(wanted.out),
        "mode": wanted.settings.mode,
        "precision": precision,
        "loras": [_row(path, source) for (path, _), source in zip(wanted.loras, sources, strict=True)],
        "unknown_keys": {
            str(path): source.lora.unknown
            for (path, _), source in zip(wanted.loras, sources, strict=True)
            if source.lora.unknown
        },
    }


def _row(path: Path, source: MergeSource) -> dict[str, Any]:
    """A LoRA's line of the table."""
    lora, strength = source.lora, source.strength
    return {
        "file": str(path),
        "ratio": strength.overall if strength.is_uniform else str(strength),
        "family": family_of(lora),
        "kinds": lora.kinds,
        "ranks": sorted({layer.rank for layer in lora.layers.values()}),
        "layers": len(lora.layers),
        "layers_used": sum(strength.of(module) != 0 for module in lora.layers),
        "precision": widest_precision([lora]),
        "sha256": source.sha256,
    }


def _numbers(planned: PlannedLayer, rank: int) -> int:
    return rank * (planned.shape[0] + math.prod(planned.shape[1:]))
