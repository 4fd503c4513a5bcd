"""How far a job is, read off its events: what it does, how much is done, how long it still takes. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.jobs import Job, JobInfo, jobs
from trainer.runs.events import EventTail
from trainer.runs.store import Workspace
from trainer.runs.turns import BUSY
from ui.run_view import duration

_SHOWN_WARNINGS = 20


@dataclass
class Progress:
    """What a job's events say so far. Times are seconds."""

    what: str = ""
    unit: str = ""
    done: int = 0
    total: int = 0
    started: float = 0.0
    latest: float = 0.0
    warnings: list[str] = field(default_factory=list)

    def add(self, event: dict[str, Any]) -> None:
        """Take one event into account."""
        if event["type"] == "progress":
            if event["what"] != self.what:
                self.what, self.started = event["what"], event["time"]
            self.done, self.total, self.latest = event["done"], event["total"], event["time"]
            self.unit = event.get("unit", "")
        elif event["type"] == "warning" and event["code"] == BUSY:
            message = event["message"].rstrip(".")
            self.what, self.done, self.total = f"waits: {message[:1].lower()}{message[1:]}", 0, 0
        elif event["type"] == "warning":
            self.warnings = [*self.warnings, event["message"]][-_SHOWN_WARNINGS:]

    @property
    def speed(self) -> str:
        """Such as "12 pictures a minute"; empty until it is known, and where the job does not say what it counts."""
        elapsed = self.latest - self.started
        if not self.unit or not self.done or elapsed < 1:
            return ""
        return f"{self.done / elapsed * 60:.3g} {self.unit} a minute"

    @property
    def seconds_left(self) -> float | None:
        """From the speed so far; None until it is known."""
        elapsed = self.latest - self.started
        if not 0 < self.done < self.total or elapsed < 1:
            return None
        return elapsed / self.done * (self.total - self.done)


def told_job(info: JobInfo, progress: Progress) -> dict[str, Any]:
    """A job as a panel's script takes it."""
    left = progress.seconds_left if info.state == "running" else None
    return {
        "id": info.id,
        "state": info.state,
        "what": progress.what or "starting",
        "done": progress.done,
        "total": progress.total,
        "left": "" if left is None else duration(left),
        "problems": [f"{each['message']} {each['hint']}".strip() for each in info.error or []],
        "warnings": progress.warnings,
    }


class JobReader:
    """Follows jobs, reading only the events that are new since the last look."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._followed: dict[str, tuple[EventTail, Progress]] = {}

    def latest(self, folder: Path, commands: Sequence[str]) -> Job | None:
        """The newest job that runs one of these commands on this folder."""
        for job in jobs(self._workspace):
            if any(f"-{name}-" in job.id for name in commands) and job.command[1:2] == [str(folder)]:
                return job
        return None

    def read(self, job: Job) -> tuple[JobInfo, Progress]:
        """The job's state and progress."""
        tail, progress = self._followed.setdefault(job.id, (EventTail(job.events_path), Progress()))
        info = job.read()
        for event in tail.read():
            progress.add(event)
        if info.state != "running":
            self._followed.pop(job.id, None)
        return info, progress
