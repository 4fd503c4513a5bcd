"""A run folder as the page shows it: curves, head line, sample wall, checkpoints, log tail. No gradio in here.

Reading is incremental and the result is kept per version, so that many open pages cost one look at the files.
"""

from __future__ import annotations

import math
import re
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.runs.events import Event, EventTail
from trainer.runs.store import ENDED, Run, RunInfo

MAX_POINTS = 500
"""Points of a curve that are drawn; more cannot be seen and make the page slow."""
LOG_TAIL_BYTES = 24_000
LOG_LINES = 200
RATE_WINDOW = 200
"""Metric events that speed and time left are taken from."""
SERIES = ("loss", "lr", "step_ms", "grad_norm", "vram_bytes")

_SAMPLE_NAME = re.compile(r"step-(\d{1,9})-p(\d{1,4})-s(\d{1,20})\.png")


@dataclass(frozen=True)
class Curve:
    """One measured value over the steps, in at most MAX_POINTS points.

    Attributes:
        steps: last step of each point.
        values: mean of the values in a point.
        low, high: smallest and largest value in a point.
        smooth: exponential moving mean over all values, at each point's last step; empty where not asked for.
    """

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    smooth: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class SampleWall:
    """Preview pictures: one row per prompt, one column per step. A cell is a file name in samples/, or None."""

    prompts: list[str]
    steps: list[int]
    cells: list[list[str | None]]


@dataclass(frozen=True)
class Checkpoint:
    """A saved state of the run; ``best`` is the one of the lowest validation loss."""

    step: int
    size_bytes: int
    best: bool = False


@dataclass(frozen=True)
class Note:
    """A warning or an error that the run told."""

    kind: str
    step: int
    message: str
    hint: str


@dataclass(frozen=True)
class RunView:
    """Everything the Runs tab shows of a run. ``version`` changes whenever anything in it does."""

    version: str
    info: RunInfo
    progress: tuple[str, int, int] | None
    steps_per_second: float | None
    seconds_left: float | None
    latest: dict[str, float]
    wall: SampleWall
    checkpoints: list[Checkpoint]
    notes: list[Note]
    log: str
    has_lora: bool


class RunReader:
    """Follows one run folder. ``view()`` reads what is new and gives an immutable picture of the whole."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._tail = EventTail(run.events_path)
        self._lock = threading.Lock()
        self._metrics: dict[str, dict[int, float]] = {name: {} for name in SERIES}
        self._validation: dict[int, float] = {}
        self._samples: dict[tuple[int, int], tuple[str, str]] = {}
        self._notes: dict[tuple[str, str], Note] = {}
        self._best: int | None = None
        self._progress: tuple[str, int, int] | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)
        self._count = 0
        self._view: RunView | None = None

    def view(self) -> RunView:
        """The run as it is now; the same object as before while nothing has changed."""
        with self._lock:
            events = self._tail.read()
            for event in events:
                self._take(event)
            self._count += len(events)
            info = self.run.status()
            version = f"{self._count}-{_stamp(self.run.info_path)}-{_stamp(self.run.log_path)}-{info.state}"
            if self._view is None or self._view.version != version:
                self._view = self._build(info, version)
            return self._view

    def curve(self, name: str, first: int | None = None, last: int | None = None, *, smooth: bool = False) -> Curve:
        """The curve of a metric between two steps, both included; the whole of it without them."""
        with self._lock:
            points = sorted(self._metrics[name].items())
        return make_curve(points, first, last, smooth=smooth)

    def validation(self) -> list[tuple[int, float]]:
        """Validation losses by step."""
        with self._lock:
            return sorted(self._validation.items())

    def _take(self, event: Event) -> None:
        step = event.get("step")
        step = step if isinstance(step, int) else 0
        match event.get("type"):
            case "metric":
                self._take_metrics(event, step)
            case "validation":
                if (loss := _number(event.get("loss"))) is not None:
                    self._validation[step] = loss
            case "checkpoint":
                if event.get("best") is True:
                    self._best = step
            case "sample":
                self._take_sample(event)
            case "progress":
                self._progress = (str(event.get("what")), _count(event.get("done")), _count(event.get("total")))
            case "state":
                self._recent.clear()  # time between is not training
                self._progress = None
            case "warning" | "error" as kind:
                note = Note(str(kind), step, str(event.get("message", "")), str(event.get("hint", "")))
                self._notes[str(kind), note.message] = note

    def _take_metrics(self, event: Event, step: int) -> None:
        """A resumed run tells some steps again: the last word counts."""
        for name in SERIES:
            if (value := _number(event.get(name))) is not None:
                self._metrics[name][step] = value
        if self._recent and step <= self._recent[-1][1]:
            self._recent.clear()
        self._recent.append((float(event.get("time") or 0), step))

    def _take_sample(self, event: Event) -> None:
        name = Path(str(event.get("path", ""))).name
        match = _SAMPLE_NAME.fullmatch(name)
        if match:
            self._samples[int(match[2]), int(match[1])] = (name, str(event.get("prompt", "")))

    def _build(self, info: RunInfo, version: str) -> RunView:
        rate = _rate(self._recent) if info.state not in ENDED else None
        left = (info.max_steps or 0) - info.step
        latest = {name: values[max(values)] for name, values in self._metrics.items() if values}
        return RunView(
            version=version,
            info=info,
            progress=self._progress if info.state not in ENDED else None,
            steps_per_second=rate,
            seconds_left=left / rate if rate and left > 0 and info.state == "training" else None,
            latest=latest,
            wall=make_wall(self._samples),
            checkpoints=find_checkpoints(self.run, self._best),
            notes=list(self._notes.values()),
            log=log_tail(self.run.log_path),
            has_lora=self.run.output_path.is_file(),
        )


class RunReaders:
    """The readers of a workspace's runs, one each, shared by all open pages."""

    def __init__(self) -> None:
        self._readers: dict[Path, RunReader] = {}
        self._lock = threading.Lock()

    def of(self, run: Run) -> RunReader:
        with self._lock:
            return self._readers.setdefault(run.dir, RunReader(run))

    def forget(self, run: Run) -> None:
        with self._lock:
            self._readers.pop(run.dir, None)


def make_curve(
    points: Sequence[tuple[int, float]], first: int | None = None, last: int | None = None, *, smooth: bool = False
) -> Curve:
    """Bring sorted (step, value) points to at most MAX_POINTS: means of equal shares, with their range.

    The smooth line is computed over all values before thinning, so that zooming does not change it.
    """
    smoothed = ema([value for _, value in points]) if smooth else []
    inside = [
        index
        for index, (step, _) in enumerate(points)
        if (first is None or step >= first) and (last is None or step <= last)
    ]
    curve = Curve()
    size = max(1, math.ceil(len(inside) / MAX_POINTS))
    for start in range(0, len(inside), size):
        share = inside[start : start + size]
        values = [points[index][1] for index in share]
        curve.steps.append(points[share[-1]][0])
        curve.values.append(sum(values) / len(values))
        curve.low.append(min(values))
        curve.high.append(max(values))
        if smooth:
            curve.smooth.append(smoothed[share[-1]])
    return curve


def ema(values: Sequence[float]) -> list[float]:
    """Exponential moving mean over about a twentieth of the values (5 to 200), without a bias towards the start."""
    keep = 1 - 2 / (min(200, max(5, len(values) / 20)) + 1)
    smoothed: list[float] = []
    total = weight = 0.0
    for value in values:
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return smoothed


def make_wall(samples: dict[tuple[int, int], tuple[str, str]], columns: int = 12) -> SampleWall:
    """Arrange (prompt number, step) -> (file, prompt). Of many steps some are left out evenly, never first or last."""
    prompts = {number: text for (number, _), (_, text) in sorted(samples.items())}
    steps = thinned(sorted({step for _, step in samples}), columns)
    cells = [[samples.get((number, step), (None, ""))[0] for step in steps] for number in prompts]
    return SampleWall(list(prompts.values()), steps, cells)


def thinned(items: list[int], most: int) -> list[int]:
    """At most ``most`` of the items, evenly spread, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def find_checkpoints(run: Run, best: int | None) -> list[Checkpoint]:
    """The checkpoints whose manifest is there, newest first; ``best`` is the step of the best one."""
    found = []
    for folder in run.checkpoints_dir.glob("step-*"):
        number = folder.name.removeprefix("step-")
        if number.isdigit() and (folder / "manifest.json").is_file():
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            found.append(Checkpoint(int(number), size, int(number) == best))
    return sorted(found, key=lambda checkpoint: -checkpoint.step)


def log_tail(path: Path) -> str:
    """The last lines of a log; of a line that was overwritten with carriage returns only what was left standing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    lines = [line.rstrip("\r").rpartition("\r")[2].replace("\x1b[K", "") for line in text.split("\n")]
    return "\n".join(lines[-LOG_LINES:]).strip("\n")


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def speed(steps_per_second: float) -> str:
    """``3.2 steps/s``, or ``1.4 s/step`` where that says more."""
    return f"{steps_per_second:.3g} steps/s" if steps_per_second >= 1 else f"{1 / steps_per_second:.3g} s/step"


def file_size(size_bytes: int) -> str:
    """``850 kB``, ``36.1 MB``, ``2.0 GB``."""
    if size_bytes < 1e6:
        return f"{max(1, round(size_bytes / 1e3))} kB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.1f} GB"


def _rate(recent: Sequence[tuple[float, int]]) -> float | None:
    """Steps per second of wall time, with the time that previews and saving took between them."""
    if len(recent) < 2:
        return None
    (first_time, first_step), (last_time, last_step) = recent[0], recent[-1]
    elapsed = last_time - first_time
    return (last_step - first_step) / elapsed if elapsed > 0 and last_step > first_step else None


def _number(value: Any) -> float | None:
    """A finite number; events say NaN and infinity in words."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _count(value: Any) -> int:
    return int(value) if _number(value) is not None else 0


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
