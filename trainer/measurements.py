"""What runs took on this machine: in former runs, and where it was measured on request. Never torch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from trainer.config import Config
from trainer.errors import UserError
from trainer.estimates import work_per_step
from trainer.files import read_json, write_json
from trainer.pace import Costs, Pace
from trainer.runs.events import Event, read_events
from trainer.runs.store import Run, Workspace

T = TypeVar("T")
F = TypeVar("F")

_LOOKED_AT_RUNS = 20
_KEPT = 50


@dataclass(frozen=True)
class Measured:
    """What a run took.

    Attributes:
        costs: of its parts.
        memory_bytes: most of the GPU's memory that PyTorch held, without what CUDA itself takes; None on the processor,
            and where the settings differ in what takes memory.
        source: where it was measured, as a clause.
    """

    costs: Costs
    memory_bytes: int | None
    source: str


def measured(config: Config, workspace: Workspace) -> Measured | None:
    """What steps of the same work took, measured on request or in the newest such run; None without."""
    kept = kept_measurement(config, workspace)
    if kept is not None:
        return kept

    def seen(run: Run, own: Config) -> tuple[Costs, int | None] | None:
        return of_events(read_events(run.events_path), own)

    alike = newest_alike(config, workspace.runs(), config_of, seen)
    if alike is None:
        return None
    run, other, (costs, memory_bytes) = alike
    same = _memory_work(other) == _memory_work(config)
    return Measured(costs_for(config, costs, other), memory_bytes if same else None, f"in run {run.id}")


def newest_alike(
    config: Config,
    runs: Iterable[T],
    read: Callable[[T], Config | None],
    found_in: Callable[[T, Config], F | None],
) -> tuple[T, Config, F] | None:
    """The newest run whose steps are the same work and of which something was seen; None without.

    Args:
        config: that of the run to come.
        runs: others, the newest first; only so many are looked at.
        read: the config of one; None where it cannot be read.
        found_in: what was seen of it; None for nothing.
    """
    work = work_per_step(config)
    for run in islice(runs, _LOOKED_AT_RUNS):
        other = read(run)
        found = found_in(run, other) if other is not None and work_per_step(other) == work else None
        if other is not None and found is not None:
            return run, other, found
    return None


def config_of(run: Run) -> Config | None:
    """A run's config; None where it cannot be read."""
    try:
        return run.config()
    except UserError:
        return None


def kept_measurement(config: Config, workspace: Workspace) -> Measured | None:
    """What was measured on request for the same work; None without."""
    work = _plain(work_per_step(config))
    for each in _kept(workspace):
        costs = _costs(each["costs"])
        if each["work"] == work and costs is not None:
            same = each["memory_work"] == _plain(_memory_work(config))
            return Measured(costs, each["memory_bytes"] if same else None, "in a short measurement")
    return None


def costs_for(config: Config, costs: Costs, other: Config) -> Costs:
    """What was seen in another run of the same work, as far as it holds for this one."""
    same = (config.validation, config.dataset.sources) == (other.validation, other.dataset.sources)
    return costs if same else replace(costs, validation=None)


def of_events(events: Sequence[Event], config: Config) -> tuple[Costs, int | None] | None:
    """What a run took, and its peak of GPU memory; None for too few steps."""
    pace = Pace()
    pace.take(events)
    costs = pace.costs(config)
    memory = [int(each) for event in events if isinstance(each := event.get("vram_bytes"), int | float)]
    return None if costs is None else (costs, max(memory, default=None))


def keep_measurement(workspace: Workspace, config: Config, costs: Costs, memory_bytes: int | None) -> None:
    """Remember a measurement in place of an older one of the same work."""
    new = {
        "work": _plain(work_per_step(config)),
        "memory_work": _plain(_memory_work(config)),
        "costs": asdict(costs),
        "memory_bytes": memory_bytes,
        "measured": time.time(),
    }
    older = [each for each in _kept(workspace) if each["work"] != new["work"]]
    write_json(_file(workspace), [new, *older][:_KEPT])


def _kept(workspace: Workspace) -> list[dict[str, Any]]:
    """Measurements, the newest first; none where the file is damaged."""
    try:
        kept = read_json(_file(workspace))
    except (OSError, ValueError):
        return []
    wanted = {"work", "memory_work", "costs", "memory_bytes"}
    return [each for each in kept if isinstance(each, dict) and wanted <= set(each)] if isinstance(kept, list) else []


def _costs(given: object) -> Costs | None:
    try:
        return TypeAdapter(Costs).validate_python(given)
    except ValidationError:  # of another version
        return None


def _memory_work(config: Config) -> dict[str, object]:
    """What decides how much memory a step takes."""
    train = {"optimizer", "lora_precision", "ema", "text_encoder_learning_rate"}
    return {
        **work_per_step(config),
        "sizes": config.lora.model_dump(exclude={"alpha", "init_from"}),
        "kept": config.train.model_dump(include=train),
        "texts": config.dataset.cache.text,
        "buckets": config.dataset.buckets.model_dump(),
    }


def _plain(work: dict[str, object]) -> Any:
    """As JSON gives it back, so that what was kept can be compared."""
    return json.loads(json.dumps(work))


def _file(workspace: Workspace) -> Path:
    return workspace.dir / "measurements.json"
