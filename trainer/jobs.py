"""Jobs: trainer commands run for the page in processes of their own.

A job is a folder ``WORKSPACE/jobs/<id>``: ``job.json`` (what to run), ``process.json`` (who runs it), ``events.jsonl``,
``job.log`` and, once it has ended, ``result.json``. It survives the page and the app. Its state is read off these
files and the process itself, so it is never shown as running when nothing runs.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from trainer.errors import UserError
from trainer.files import last_log_line, read_json, write_json, write_text
from trainer.processes import process_facts, signal_group, start_detached, trainer_command
from trainer.runs.store import Workspace, process_is_alive

JobState = Literal["running", "finished", "stopped", "failed"]

DIED = "job.died"
"""The problem's code of a job whose process is gone without a word."""

_START_SECONDS = 30.0  # how long a job may take from its folder to its process
_KILL_AFTER_SECONDS = 5.0
_KEPT_JOBS = 50


class JobInfo(BaseModel):
    """What is known of a job. Times are Unix seconds; ``error`` holds problems as code, message, hint and field."""

    id: str
    title: str
    command: list[str]
    state: JobState
    pid: int | None = None
    result: dict[str, Any] | None = None
    error: list[dict[str, Any]] | None = None
    started: float
    ended: float | None = None


@dataclass(frozen=True)
class Job:
    """One job folder."""

    dir: Path

    @property
    def id(self) -> str:
        return self.dir.name

    @property
    def events_path(self) -> Path:
        return self.dir / "events.jsonl"

    @property
    def log_path(self) -> Path:
        return self.dir / "job.log"

    @property
    def result_path(self) -> Path:
        return self.dir / "result.json"

    @property
    def command(self) -> list[str]:
        """The trainer command to run, without ``python -m trainer``. Raises UserError when this is no job folder."""
        return [str(part) for part in self._order()["command"]]

    def read(self) -> JobInfo:
        """The job as it is now. Raises UserError when this is no job folder."""
        order = self._order()
        info = JobInfo(
            id=self.id, title=order["title"], command=order["command"], state="running", started=order["started"]
        )
        pid, pid_started, mark = self._process()
        # Alive is asked before the result: a job that ends in between has its result by then.
        alive = process_is_alive(pid, pid_started, mark)
        if self.result_path.exists():
            return self._ended(info)
        if alive or (pid is None and time.time() - info.started < _START_SECONDS):
            return info.model_copy(update={"pid": pid})
        return info.model_copy(update=self._died())

    def cancel(self) -> None:
        """Ask the job to end; asked again after some seconds, end it the hard way."""
        info = self.read()
        if info.state != "running":
            return
        asked = _read_or_none(self._cancel_path)
        if asked is None:
            write_json(self._cancel_path, time.time())
        if info.pid is not None:
            signal_group(info.pid, kill=asked is not None and time.time() - asked > _KILL_AFTER_SECONDS)

    def note_process(self, pid: int) -> None:
        """Write down which process runs the job."""
        write_json(self.dir / "process.json", process_facts(pid))

    def finish(self, state: JobState, *, result: Any = None, error: list[dict[str, Any]] | None = None) -> None:
        """Write down how the job ended."""
        outcome = {"state": state, "result": result, "error": error, "ended": time.time()}
        write_text(self.result_path, json.dumps(outcome, indent=2, default=str))

    @property
    def cancel_asked(self) -> bool:
        return self._cancel_path.exists()

    @property
    def _cancel_path(self) -> Path:
        return self.dir / "cancel.json"

    def _order(self) -> dict[str, Any]:
        order = _read_or_none(self.dir / "job.json")
        if not isinstance(order, dict) or not {"title", "command", "started"} <= set(order):
            raise UserError("job.unknown", f"There is no job in {self.dir}.", "It may have been cleared away.")
        return order

    def _process(self) -> tuple[int | None, float | None, int | None]:
        process = _read_or_none(self.dir / "process.json")
        return (process["pid"], process["pid_started"], process.get("pid_mark")) if process else (None, None, None)

    def _ended(self, info: JobInfo) -> JobInfo:
        """The job with its outcome; one whose outcome cannot be read counts as gone without a word."""
        outcome = _read_or_none(self.result_path)
        try:
            return JobInfo.model_validate({**info.model_dump(), **outcome})
        except (TypeError, ValidationError):
            return info.model_copy(update=self._died())

    def _died(self) -> dict[str, Any]:
        """The outcome of a job that is gone without a word."""
        if self.cancel_asked:
            return {"state": "stopped", "ended": self._last_sign()}
        words = last_log_line(self.log_path)
        message = "The job ended without saying why." + (f" Its last words: {words}" if words else "")
        problem = {"code": DIED, "message": message, "hint": f"The whole log is {self.log_path}.", "field": ""}
        return {"state": "failed", "ended": self._last_sign(), "error": [problem]}

    def _last_sign(self) -> float:
        return max(path.stat().st_mtime for path in [self.dir, *self.dir.iterdir()])


def start_job(
    workspace: Workspace, command: list[str], title: str, lists: Mapping[str, Sequence[str]] | None = None
) -> Job:
    """Start a trainer command (``["merge", "--lora", ...]``) in a process of its own and return at once.

    Args:
        workspace: where the job's folder is made.
        command: the command with its arguments.
        title: what the page calls the job.
        lists: what is too long for arguments, by option: each becomes a JSON file in the job's folder.
    """
    _clear_old(workspace)
    slug = re.sub(r"[^a-z0-9]+", "-", command[0].lower())
    job = Job(workspace.jobs_dir / f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}-{secrets.token_hex(3)}")
    job.dir.mkdir(parents=True)
    files = {name: job.dir / f"{name}.json" for name in lists or {}}
    for name, file in files.items():
        write_json(file, list((lists or {})[name]))
    command = [*command, *(f"--{name}={file}" for name, file in files.items())]
    write_json(job.dir / "job.json", {"title": title, "command": command, "started": time.time()})
    process = start_detached(trainer_command("job", str(job.dir)), job.log_path)
    job.note_process(process.pid)
    return job


def jobs(workspace: Workspace) -> list[Job]:
    """All jobs, newest first."""
    if not workspace.jobs_dir.is_dir():
        return []
    found = [Job(folder) for folder in workspace.jobs_dir.iterdir() if (folder / "job.json").is_file()]
    return sorted(found, key=lambda job: (job.dir / "job.json").stat().st_mtime, reverse=True)


def job(workspace: Workspace, job_id: str) -> Job:
    """The job of this id. Raises UserError when there is none; an id cannot lead out of the workspace."""
    found = Job(workspace.jobs_dir / job_id)
    if Path(job_id).name != job_id or not (found.dir / "job.json").is_file():
        raise UserError("job.unknown", f"There is no job {job_id!r}.", "It may have been cleared away.")
    return found


def _clear_old(workspace: Workspace) -> None:
    """Delete the oldest ended jobs; their results have long been used."""
    for old in jobs(workspace)[_KEPT_JOBS:]:
        if old.read().state != "running":
            shutil.rmtree(old.dir, ignore_errors=True)


def _read_or_none(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
