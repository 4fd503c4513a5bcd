"""A run folder as the page shows it: head line, curves, previews, checkpoints, log tail. No gradio in here.

Reading is incremental and the result is kept until a file changes, so that many open pages cost one look at the files.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from trainer.config import Config
from trainer.errors import UserError
from trainer.file_states import Mark, mark_of
from trainer.pace import Pace, epochs_by, seconds_left
from trainer.runs.events import Event, EventTail
from trainer.runs.store import ENDED, Run, RunInfo
from ui.curves import Stretch, csv_lines, curves, smoothed, usual_keep
from ui.metric_store import MetricStore, number

LOG_TAIL_BYTES = 24_000
LOG_LINES = 200
UNSEEN_SECONDS = 60.0
"""After so long without a look a reader is dropped, and what it holds in memory with it."""

_LARGEST_STEP = 2**53
_MOST_RESUMES = 100
_SAMPLE_NAME = re.compile(r"step-(\d{1,9})-p(\d{1,4})-s(\d{1,20})\.png")


@dataclass(frozen=True)
class Sample:
    """A preview picture: its file in ``samples/``, and when it was drawn."""

    name: str
    prompt: str
    time: float


@dataclass(frozen=True)
class SampleWall:
    """Preview pictures: one row per prompt, one column per step. A cell is None where there is no picture."""

    prompts: list[str]
    steps: list[int]
    cells: list[list[Sample | None]]


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
class Figures:
    """What a run comes to.

    Attributes:
        loss: smoothed, at its last step.
        best_validation: step and loss.
        seconds: of training.
    """

    loss: float | None
    best_validation: tuple[int, float] | None
    seconds: float


@dataclass(frozen=True)
class RunView:
    """Everything the Runs tab shows of a run, apart from curves and pictures.

    Attributes:
        curves_version: changes with the curves.
        wall_version: changes with the preview pictures.
        seconds_left: until the end; None while it is not known, and where the run does not train.
    """

    curves_version: str
    wall_version: str
    info: RunInfo
    progress: tuple[str, int, int] | None
    steps_per_second: float | None
    seconds_left: float | None
    latest: dict[str, float]
    checkpoints: list[Checkpoint]
    notes: list[Note]
    log: str
    has_lora: bool


class RunReader:
    """Follows one run folder. ``view()`` reads what is new and gives an immutable picture of the whole."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.last_look = time.monotonic()
        self._tail = EventTail(run.events_path)
        self._lock = threading.RLock()
        self._store = MetricStore()
        self._pace = Pace()
        self._validation: dict[int, float] = {}
        self._resumes: list[int] = []
        self._samples: dict[tuple[int, int], Sample] = {}
        self._notes: dict[tuple[str, str], Note] = {}
        self._best: int | None = None
        self._progress: tuple[str, int, int] | None = None
        self._counts = {"all": 0, "curves": 0, "wall": 0}
        self._seen: tuple[int, list[Mark], RunInfo] | None = None
        self._view: RunView | None = None
        self._answers: dict[Stretch, bytes] = {}
        self._config: Config | None = None

    def view(self) -> RunView:
        """The run as it is now; the same object as before while nothing has changed."""
        with self._lock:
            self.last_look = time.monotonic()
            for events in self._tail.parts():
                self._take_all(events)
            marks = [mark_of(path) for path in (self.run.log_path, self.run.checkpoints_dir)]
            info = self.run.status()
            seen = self._counts["all"], marks, info
            if self._view is None or seen != self._seen:
                view = self._build(info)
                self._seen = seen
                self._view = self._view if view == self._view else view
            return self._view

    def curves(self, stretch: Stretch) -> bytes:
        """The curves as JSON, see ``ui.curves.curves``; made once for all who ask for the same."""
        with self._lock:
            view = self.view()
            if stretch not in self._answers:
                answer = curves(self._store, stretch) | {
                    "version": view.curves_version,
                    "validation": self._validation_curve(),
                    "resumes": self._elapsed_at(self._resumes),
                }
                self._answers[stretch] = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
            return self._answers[stretch]

    def csv(self) -> Iterator[str]:
        """All that was measured, see ``ui.curves.csv_lines``."""
        with self._lock:
            self.view()
            return csv_lines(self._store, dict(self._validation))

    def wall(self) -> SampleWall:
        """The preview pictures so far."""
        with self._lock:
            return make_wall(self._samples)

    def figures(self) -> Figures:
        """What the run comes to, as of the last ``view()``."""
        with self._lock:
            store, best = self._store, min(self._validation.items(), key=lambda item: item[1], default=None)
            line = smoothed(store.column("loss"), usual_keep(len(store))) if "loss" in store.names else np.empty(0)
            loss = float(line[-1]) if len(line) and np.isfinite(line[-1]) else None
            return Figures(loss, best, float(store.elapsed[-1]) if len(store) else 0.0)

    def _validation_curve(self) -> dict[str, Any]:
        steps = sorted(self._validation)
        values = [self._validation[step] for step in steps]
        return {"steps": steps, "elapsed": self._elapsed_at(steps)["elapsed"], "values": values}

    def _elapsed_at(self, steps: list[int]) -> dict[str, Any]:
        known = len(self._store) > 0
        times = np.interp(steps, self._store.steps, self._store.elapsed).round(3).tolist() if known and steps else []
        return {"steps": steps, "elapsed": times or [0.0] * len(steps)}

    def _take_all(self, events: list[Event]) -> None:
        """Metrics are taken many at once: a run has a hundred thousand of them and a few hundred other events."""
        metrics: list[Event] = []
        last = -1
        for event in events:
            step = event.get("step")
            if type(step) is not int or not 0 <= step < _LARGEST_STEP:
                step = event["step"] = 0
            if event["type"] == "metric":
                if step <= last:
                    self._take_metrics(metrics)
                    metrics = []
                metrics.append(event)
                last = step
            else:
                self._take_metrics(metrics)
                metrics, last = [], -1
                self._take(event, step)
        self._take_metrics(metrics)
        self._pace.take(events)
        self._counts["all"] += len(events)

    def _take_metrics(self, events: list[Event]) -> None:
        if not events:
            return
        self._counts["curves"] += len(events)
        self._store.add(events)

    def _take(self, event: Event, step: int) -> None:
        match event["type"]:
            case "validation":
                if (loss := number(event.get("loss"))) is not None:
                    self._validation[step] = loss
                    self._counts["curves"] += 1
            case "checkpoint":
                if event.get("best") is True:
                    self._best = step
            case "sample":
                self._take_sample(event)
            case "progress":
                self._progress = (str(event.get("what")), _count(event.get("done")), _count(event.get("total")))
            case "state":
                self._take_state(event, step)
            case "prompts":
                self._config = None  # they are in its file now
            case "warning" | "error" as kind:
                note = Note(str(kind), step, str(event.get("message", "")), str(event.get("hint", "")))
                self._notes[str(kind), note.message] = note

    def _take_state(self, event: Event, step: int) -> None:
        self._store.interrupt()
        self._progress = None
        self._config = None  # extending a run changes it
        if event.get("state") == "training" and len(self._store):
            resumed = step or self._store.last_step
            self._resumes = [*self._resumes, resumed][-_MOST_RESUMES:]
            self._validation = {at: loss for at, loss in self._validation.items() if at <= resumed}  # others come anew

    def _take_sample(self, event: Event) -> None:
        name = Path(str(event.get("path", ""))).name
        match = _SAMPLE_NAME.fullmatch(name)
        if match:
            told = Sample(name, str(event.get("prompt", "")), number(event.get("time")) or 0.0)
            self._samples[int(match[2]), int(match[1])] = told
            self._counts["wall"] += 1

    def _build(self, info: RunInfo) -> RunView:
        self._answers.clear()
        step_seconds, left = self._times(info)
        return RunView(
            curves_version=str(self._counts["curves"]),
            wall_version=str(self._counts["wall"]),
            info=info,
            progress=self._progress if info.state not in ENDED else None,
            steps_per_second=1 / step_seconds if step_seconds else None,
            seconds_left=left,
            latest=self._latest(),
            checkpoints=find_checkpoints(self.run, self._best),
            notes=list(self._notes.values()),
            log=log_tail(self.run.log_path),
            has_lora=(self.run.output_dir / f"{info.name}.safetensors").is_file(),
        )

    def _times(self, info: RunInfo) -> tuple[float | None, float | None]:
        """Seconds of a step and until the end, as far as they are known and matter."""
        config = self._read_config() if info.state not in ENDED else None
        if config is None or not info.max_steps:
            return None, None
        place = self._pace.place
        costs = self._pace.costs(config, info.max_steps - place.step)
        if costs is None:
            return None, None
        epochs_done = epochs_by(config, info.max_steps, info.batches_per_epoch)
        left = seconds_left(config, costs, place, info.max_steps, epochs_done)
        return costs.step, left if info.state == "training" else None

    def _latest(self) -> dict[str, float]:
        latest = {}
        for name in self._store.names:
            recent = self._store.column(name)[-100:]
            told = recent[np.isfinite(recent)]
            if len(told):
                latest[name] = float(told[-1])
        return latest

    def _read_config(self) -> Config | None:
        if self._config is None:
            with suppress(UserError, OSError):
                self._config = self.run.config()
        return self._config


class RunReaders:
    """The readers of a workspace's runs, one each, shared by all open pages and dropped when nobody looks."""

    def __init__(self) -> None:
        self._readers: dict[Path, RunReader] = {}
        self._lock = threading.Lock()
        self._sweeping = False

    def of(self, run: Run) -> RunReader:
        """The reader of a run; made where there is none."""
        with self._lock:
            if not self._sweeping:
                self._sweeping = True
                self._sweep_later()
            return self._readers.setdefault(run.dir, RunReader(run))

    def forget(self, run: Run) -> None:
        """Drop a run's reader."""
        with self._lock:
            self._readers.pop(run.dir, None)

    def sweep(self) -> None:
        """Drop those that were not looked at for a while."""
        with self._lock:
            limit = time.monotonic() - UNSEEN_SECONDS
            self._readers = {path: reader for path, reader in self._readers.items() if reader.last_look > limit}
            self._sweeping = bool(self._readers)
            if self._sweeping:
                self._sweep_later()

    def _sweep_later(self) -> None:
        timer = threading.Timer(UNSEEN_SECONDS, self.sweep)
        timer.daemon = True
        timer.start()


@lru_cache(maxsize=4)
def readers_of(workspace: Path) -> RunReaders:
    """The readers of a workspace: the same for every part of the page."""
    return RunReaders()


def make_wall(samples: dict[tuple[int, int], Sample]) -> SampleWall:
    """Arrange (prompt number, step) -> picture. A prompt is called by its newest words."""
    prompts = {number: sample.prompt for (number, _), sample in sorted(samples.items())}
    steps = sorted({step for _, step in samples})
    cells = [[samples.get((number, step)) for step in steps] for number in prompts]
    return SampleWall(list(prompts.values()), steps, cells)


def find_checkpoints(run: Run, best: int | None) -> list[Checkpoint]:
    """The checkpoints whose manifest is there, newest first; ``best`` is the step of the best one."""
    found = []
    for folder in run.checkpoints_dir.glob("step-*"):
        name = folder.name.removeprefix("step-")
        if name.isdigit() and (folder / "manifest.json").is_file():
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            found.append(Checkpoint(int(name), size, int(name) == best))
    return sorted(found, key=lambda checkpoint: -checkpoint.step)


def standing(line: str) -> str:
    """What is left standing of a line of a log that was overwritten with carriage returns."""
    return line.rstrip("\r").rpartition("\r")[2].replace("\x1b[K", "")


def log_tail(path: Path) -> str:
    """The last lines of a log; of a line that was overwritten with carriage returns only what was left standing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    lines = [standing(line) for line in text.split("\n")]
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


def _count(value: Any) -> int:
    found = number(value)
    return 0 if found is None else int(found)
