"""What steps took on this machine: in former runs, and where it was measured on request. Never torch."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.errors import UserError
from trainer.estimates import work_per_step
from trainer.files import read_json, write_json
from trainer.runs.events import Event, read_events
from trainer.runs.store import Workspace

_LOOKED_AT_RUNS = 20
_FIRST_STEPS = 5  # warming up; not typical
_KEPT = 50


@dataclass(frozen=True)
class Measured:
    """A measured step.

    Attributes:
        step_ms: the median, without the first steps.
        memory_bytes: most of the GPU's memory that PyTorch held, without what CUDA itself takes; None on the processor,
            and where the settings differ in what takes memory.
        source: where it was measured, as a clause.
    """

    step_ms: float
    memory_bytes: int | None
    source: str


def measured_step(config: Config, workspace: Workspace) -> Measured | None:
    """A step of the same work, measured on request or in the newest such run; None without."""
    work = _plain(work_per_step(config))
    for each in _kept(workspace):
        if each["work"] == work:
            same = each["memory_work"] == _plain(_memory_work(config))
            return Measured(each["step_ms"], each["memory_bytes"] if same else None, "in a short measurement")
    for run in workspace.runs()[:_LOOKED_AT_RUNS]:
        try:
            other = run.config()
        except UserError:
            continue
        found = of_events(read_events(run.events_path)) if _plain(work_per_step(other)) == work else None
        if found is not None:
            step_ms, memory_bytes = found
            same = _memory_work(other) == _memory_work(config)
            return Measured(step_ms, memory_bytes if same else None, f"in run {run.id}")
    return None


def of_events(events: Iterable[Event], first_steps: int = _FIRST_STEPS) -> tuple[float, int | None] | None:
    """Median milliseconds of a step without the first ones, and the peak of GPU memory; None for too few steps."""
    metrics = [event for event in events if event["type"] == "metric"]
    times = [float(each) for event in metrics if isinstance(each := event.get("step_ms"), int | float)][first_steps:]
    memory = [int(each) for event in metrics if isinstance(each := event.get("vram_bytes"), int | float)]
    return (statistics.median(times), max(memory, default=None)) if times else None


def keep_measurement(workspace: Workspace, config: Config, step_ms: float, memory_bytes: int | None) -> None:
    """Remember a measurement in place of an older one of the same work."""
    new = {
        "work": _plain(work_per_step(config)),
        "memory_work": _plain(_memory_work(config)),
        "step_ms": round(step_ms, 3),
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
    wanted = {"work", "memory_work", "step_ms", "memory_bytes"}
    return [each for each in kept if isinstance(each, dict) and wanted <= set(each)] if isinstance(kept, list) else []


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
