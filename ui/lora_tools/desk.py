"""A tool's job: starting it, how it stands, what came out. No gradio in here.

``WORKSPACE/last_<tool>.json`` names the job, so that a reloaded page goes on showing it.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from trainer.config import Config
from trainer.errors import Problem, UserError
from trainer.files import read_json, write_json
from trainer.jobs import Job, JobInfo, job, start_job
from trainer.runs.store import Workspace
from ui import picture_html
from ui.job_progress import JobReader, Progress
from ui.lora_tools.inspection import inspection_html
from ui.run_view import duration

Report = Callable[[dict[str, Any]], str]
"""HTML of what a finished command answered."""


@dataclass(frozen=True)
class Order:
    """A trainer command to be run for a tool.

    Attributes:
        command: the arguments, ``["resize", "--lora", ...]``.
        title: what to call the job.
        out: what it writes; None where it only looks.
        overwrite: whether ``out`` may be there already.
        problems: what speaks against it.
    """

    command: list[str]
    title: str
    out: Path | None = None
    overwrite: bool = False
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Standing:
    """How a tool's newest job stands. ``version`` changes whenever ``html`` does."""

    version: str = ""
    html: str = ""
    going: bool = False


class _Memory(BaseModel):
    model_config = ConfigDict(extra="ignore")

    job: str = ""
    inspection: str = ""


class ToolDesk:
    """Starts a tool's jobs and says how the newest stands."""

    def __init__(self, workspace: Workspace, tool: str, report: Report) -> None:
        """``tool``: its name in words, such as ``merge``; ``report``: tells what a finished job answered."""
        self._workspace = workspace
        self._tool = tool
        self._report = report
        self._memory = workspace.dir / f"last_{tool}.json"
        self._reader = JobReader(workspace)

    def start(self, order: Order) -> None:
        """Start the job. Raises UserError, all problems at once; nothing is overwritten unasked."""
        problems = [*order.problems, *_out_problems(order)]
        current = self._job(self._read().job)
        if current is not None and current.read().state == "running":
            message = f"Another {self._tool} job is still going."
            problems.append(Problem(f"{self._tool}.running", message, "Wait for its end, or cancel it."))
        if problems:
            raise UserError.many(problems)
        if order.out is not None:
            order.out.parent.mkdir(parents=True, exist_ok=True)
        started = start_job(self._workspace, order.command, order.title)
        write_json(self._memory, _Memory(job=started.id).model_dump())

    def cancel(self) -> None:
        """End the job."""
        current = self._job(self._read().job)
        if current is not None:
            current.cancel()

    def standing(self) -> Standing:
        """How the newest job stands."""
        memory = self._read()
        current = self._job(memory.job)
        if current is None:
            return Standing()
        info, progress = self._reader.read(current)
        if info.state == "running":
            words = progress_words(info, progress)
            return Standing(f"{info.id} {words}", _bar(words, progress), going=True)
        inspection = self._inspection(memory, info)
        version = f"{info.id} {info.state} {inspection is not None}"
        return Standing(version, self._outcome(info, progress.warnings, inspection))

    def result(self) -> dict[str, Any] | None:
        """What the newest job answered; None unless it is finished."""
        current = self._job(self._read().job)
        info = current.read() if current is not None else None
        return info.result if info is not None and info.state == "finished" else None

    def lora(self) -> Path | None:
        """The LoRA that the newest job has written; None unless it has, and it is still there."""
        return written_lora(self.result() or {})

    def _inspection(self, memory: _Memory, done: JobInfo) -> dict[str, Any] | None:
        """What ``inspect`` says of a LoRA that was written, by a job of its own once it is there."""
        out = written_lora(done.result or {})
        if done.state != "finished" or out is None:
            return None
        looking = self._job(memory.inspection)
        if looking is None:
            looking = start_job(self._workspace, ["inspect", str(out)], f"Look into {out.name}")
            write_json(self._memory, memory.model_copy(update={"inspection": looking.id}).model_dump())
        return looking.read().result

    def _outcome(self, info: JobInfo, warnings: Sequence[str], inspection: dict[str, Any] | None) -> str:
        if info.state == "stopped":
            return '<div class="status">Cancelled. Nothing was written.</div>'
        if info.state == "failed":
            problems: Sequence[dict[str, Any]] = info.error or []
            return picture_html.problems([{k: str(v) for k, v in problem.items()} for problem in problems])
        found = self._report(info.result or {})
        notes = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
        told = f'<ul class="notes">{notes}</ul>' if notes else ""
        return f"{found}{told}{inspection_html(inspection) if inspection else ''}"

    def _read(self) -> _Memory:
        try:
            return _Memory.model_validate(read_json(self._memory))
        except (OSError, ValueError):
            return _Memory()

    def _job(self, job_id: str) -> Job | None:
        try:
            return job(self._workspace, job_id) if job_id else None
        except UserError:
            return None  # old jobs are cleared away


def written_lora(result: dict[str, Any]) -> Path | None:
    """The LoRA that a finished command has written, which ``inspect`` can tell more about."""
    out = Path(str(result.get("out", "")))
    is_lora = out.suffix == ".safetensors" and ("base" not in result or "tuned" in result)
    return out if is_lora and out.is_file() else None


def name_problems(name: str) -> list[Problem]:
    """What speaks against a file's name, by the rules for the names of runs."""
    try:
        Config.model_validate({"name": name})
    except ValueError:
        hint = 'Use letters and numbers; not / \\ : * ? " < > |, and no dot or space in front.'
        return [Problem("name.wrong", f"Name: {name!r} does not work as a file name.", hint, "name")]
    return []


def saved(result: dict[str, Any], rows: Sequence[tuple[str, str]] = ()) -> str:
    """The usual report of a tool that wrote something: where it is, then a table of facts."""
    table = picture_html.facts([("Saved as", str(result.get("out", ""))), *rows])
    return f'<div class="saved"><b>Saved.</b> It is in the lists of LoRAs and models now.{table}</div>'


def progress_words(info: JobInfo, progress: Progress) -> str:
    """What a job does, how far it is, and how long it still takes, in words."""
    if not progress.total and progress.what:
        return progress.what.capitalize()
    if not progress.total:
        waited = time.time() - info.started
        return "Starting: the programs are being loaded" if waited > 2 else "Starting"
    words = f"{progress.what.capitalize()} {progress.done} of {progress.total}"
    left = progress.seconds_left
    return words if left is None else f"{words}, {duration(left)} left"


def _bar(words: str, progress: Progress) -> str:
    share = progress.done / progress.total if progress.total else 0.0
    return (
        f'<div class="status">{html.escape(words)}<div class="progress"><i style="width:{share:.1%}"></i></div></div>'
    )


def _out_problems(order: Order) -> list[Problem]:
    if order.out is None or order.overwrite or any(problem.field == "name" for problem in order.problems):
        return []
    if not order.out.exists():
        return []
    message = f"{order.out.name} exists already."
    return [Problem("out.exists", message, "Choose another name, or allow that it is replaced.", "name")]
