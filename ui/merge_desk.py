"""Saving a merge: what is asked of the merge command, how the job stands, and what came out. No gradio in here.

``WORKSPACE/last_merge.json`` names the job, so that a reloaded page goes on showing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from trainer.config import Config
from trainer.errors import Problem, UserError
from trainer.files import read_json, write_json
from trainer.jobs import Job, JobInfo, job, start_job
from trainer.pictures import LoraUse
from trainer.runs.store import Workspace
from ui import picture_html
from ui.job_progress import JobReader
from ui.run_view import file_size

Mode = Literal["exact", "svd", "kohya"]
Target = Literal["lora", "model"]


class Merge(BaseModel):
    """What is to be saved."""

    loras: list[LoraUse]
    target: Target
    model: str
    mode: Mode = "exact"
    rank: int | None = None
    name: str


class _Memory(BaseModel):
    model_config = ConfigDict(extra="ignore")

    job: str = ""
    inspection: str = ""


class MergeDesk:
    """Starts merge jobs and says how the newest stands."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._memory = workspace.dir / "last_merge.json"
        self._reader = JobReader(workspace)

    def save(self, merge: Merge) -> None:
        """Start the job that writes it. Raises UserError, all problems at once; nothing is overwritten."""
        out = self.out_path(merge)
        problems = [*_problems(merge), *_name_problems(merge.name, out)]
        current = self._job(self._read().job)
        if current is not None and current.read().state == "running":
            problems.append(
                Problem("merge.running", "Another merge is being saved.", "Wait for its end, or cancel it.")
            )
        if problems:
            raise UserError.many(problems)
        self._workspace.models_dir.mkdir(parents=True, exist_ok=True)
        started = start_job(self._workspace, merge_command(merge, out), f"Merge {merge.name}")
        write_json(self._memory, _Memory(job=started.id).model_dump())

    def cancel(self) -> None:
        """End the job."""
        current = self._job(self._read().job)
        if current is not None:
            current.cancel()

    def out_path(self, merge: Merge) -> Path:
        """Where the result goes."""
        name = f"{merge.name}.safetensors" if merge.target == "lora" else merge.name
        return self._workspace.models_dir / name

    def state(self) -> tuple[str, str, bool]:
        """(version, HTML, whether it is still going) of the newest merge."""
        memory = self._read()
        current = self._job(memory.job)
        if current is None:
            return "", "", False
        info, progress = self._reader.read(current)
        if info.state == "running":
            words = f"{progress.what} {progress.done} of {progress.total}" if progress.total else "starting"
            share = progress.done / progress.total if progress.total else 0.0
            bar = f'<div class="progress"><i style="width:{share:.1%}"></i></div>'
            text = f'<div class="status">{words.capitalize()}{bar}</div>'
            return f"{info.id} {words}", text, True
        inspection = self._inspection(memory, info)
        return f"{info.id} {info.state} {inspection is not None}", _outcome(info, inspection), False

    def _inspection(self, memory: _Memory, merged: JobInfo) -> dict[str, Any] | None:
        """What ``inspect`` says of the merged LoRA, by a job of its own once the merge is done."""
        out = Path(str((merged.result or {}).get("out", "")))
        if merged.state != "finished" or out.suffix != ".safetensors" or not out.is_file():
            return None
        looking = self._job(memory.inspection)
        if looking is None:
            looking = start_job(self._workspace, ["inspect", str(out)], f"Look into {out.name}")
            write_json(self._memory, memory.model_copy(update={"inspection": looking.id}).model_dump())
        return looking.read().result

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


def merge_command(merge: Merge, out: Path) -> list[str]:
    """The trainer command that does it."""
    command = ["merge"]
    for use in merge.loras:
        command += ["--lora", f"{use.path}={use.weight!r}"]
    command += ["--out", str(out)]
    if merge.target == "model":
        return [*command, "--base", merge.model]
    command += ["--mode", merge.mode]
    return [*command, "--rank", str(merge.rank)] if merge.mode == "svd" else command


def inspection_rows(inspection: dict[str, Any]) -> list[tuple[str, str]]:
    """The telling parts of ``inspect``'s answer."""
    listing = {
        name: ", ".join(
            key if len(inspection[name]) == 1 else f"{key} ({count})" for key, count in inspection[name].items()
        )
        for name in ("kinds", "ranks", "alphas", "parts")
    }
    return [
        ("Size", f"{file_size(int(inspection['size_bytes']))}, {inspection['precision']}"),
        ("Family", str(inspection["family"])),
        ("Kind", listing["kinds"]),
        ("Layers", f"{inspection['modules']} ({listing['parts']})"),
        ("Rank", listing["ranks"]),
        ("Alpha", listing["alphas"]),
    ]


def _problems(merge: Merge) -> list[Problem]:
    problems = []
    if not merge.loras:
        problems.append(Problem("merge.no_loras", "No LoRA is chosen.", "Choose one or more.", "loras"))
    if merge.mode == "svd" and merge.target == "lora" and not merge.rank:
        problems.append(Problem("merge.rank", "Rank is empty.", "Give the rank of the result.", "rank"))
    return problems


def _name_problems(name: str, out: Path) -> list[Problem]:
    try:
        Config.model_validate({"name": name})
    except ValueError:
        hint = 'Use letters and numbers; not / \\ : * ? " < > |, and no dot or space in front.'
        return [Problem("merge.name", f"Name: {name!r} does not work as a file name.", hint, "name")]
    if out.exists():
        return [Problem("merge.exists", f"{out.name} exists already.", "Choose another name.", "name")]
    return []


def _outcome(info: JobInfo, inspection: dict[str, Any] | None) -> str:
    if info.state == "stopped":
        return '<div class="status">Cancelled. Nothing was written.</div>'
    if info.state == "failed":
        problems: Sequence[dict[str, Any]] = info.error or []
        return picture_html.problems([{k: str(v) for k, v in problem.items()} for problem in problems])
    out = str((info.result or {}).get("out", ""))
    table = picture_html.facts([("Saved as", out), *(inspection_rows(inspection) if inspection else [])])
    return f'<div class="saved"><b>Saved.</b> It is in the lists of LoRAs and models now.{table}</div>'
