"""How long runs take a step, from what runs of this workspace took. No Gradio."""

from __future__ import annotations

import json
import os
import statistics
from contextlib import suppress
from pathlib import Path

from trainer.errors import UserError
from trainer.estimates import work_per_step
from trainer.runs.store import Run, RunInfo, Workspace

_TAIL_BYTES = 64_000
_LOOKED_AT = 12
"""Runs, from the newest on, among which one alike is looked for."""


class Paces:
    """Follows the runs of a workspace; a file is read again only when it has changed."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._steps: dict[Path, tuple[int, float | None]] = {}
        self._works: dict[Path, tuple[int, dict[str, object] | None]] = {}

    def seconds_left(self, info: RunInfo, infos: tuple[RunInfo, ...]) -> float | None:
        """The time that what is left of a run takes, by its own steps or those of the newest run like it.

        None where the number of steps or the time of a step is not known. Getting ready and previews come on top.
        """
        steps = info.extend_to or info.max_steps
        pace = self._pace(info, infos) if steps else None
        return None if pace is None or steps is None else max(0, steps - info.step) * pace

    def _pace(self, info: RunInfo, infos: tuple[RunInfo, ...]) -> float | None:
        own = self._step_seconds(info)
        if own is not None:
            return own
        work = self._work(info)
        others = [other for other in infos if other.id != info.id and other.step > 0][:_LOOKED_AT]
        alike = (other for other in others if work is not None and self._work(other) == work)
        return next((pace for other in alike if (pace := self._step_seconds(other)) is not None), None)

    def _step_seconds(self, info: RunInfo) -> float | None:
        path = self._run(info).events_path
        size = path.stat().st_size if path.exists() else 0
        if self._steps.get(path, (-1, None))[0] != size:
            self._steps[path] = (size, step_seconds(path))
        return self._steps[path][1]

    def _work(self, info: RunInfo) -> dict[str, object] | None:
        """What decides how long a step takes; None where the config cannot be read."""
        run = self._run(info)
        stamp = run.config_path.stat().st_mtime_ns if run.config_path.exists() else 0
        if self._works.get(run.dir, (-1, None))[0] != stamp:
            self._works[run.dir] = (stamp, _work_of(run))
        return self._works[run.dir][1]

    def _run(self, info: RunInfo) -> Run:
        return Run(self._workspace.runs_dir / info.id)


def step_seconds(events_path: Path) -> float | None:
    """The middle of the times that the last steps of a run took; None with fewer than three of them."""
    try:
        with events_path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return None
    times: list[float] = []
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):  # the first line is half a one, and others tell other things
            times.append(float(json.loads(line)["step_ms"]) / 1000)
    return statistics.median(times) if len(times) > 2 else None


def _work_of(run: Run) -> dict[str, object] | None:
    try:
        return work_per_step(run.config())
    except UserError:
        return None
