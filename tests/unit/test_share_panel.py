"""The page's panel for sharing: what it asks for, and that nothing is sent that was not shown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from trainer.config_io import parse_config
from trainer.errors import UserError
from trainer.files import write_json
from trainer.jobs import Job
from trainer.runs.store import Run, Workspace
from trainer.sharing.settings import ShareSettings
from ui.context import AppContext
from ui.job_progress import JobReader
from ui.lora_hub import get
from ui.runs import share


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    return AppContext(Workspace(tmp_path / "workspace"))


@pytest.fixture
def run(context: AppContext) -> Run:
    config = parse_config({"name": "a run", "output": {"hub_repo": "someone/a-run", "describe_dataset": True}})
    return context.workspace.create_run(config)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of jobs, which are not run."""
    commands: list[list[str]] = []
    monkeypatch.setattr(share, "start_job", lambda workspace, command, title: commands.append(command))
    return commands


def ended_job(run: Run, command: list[str], state: str = "finished", result: Any = None) -> Job:
    job = Job(run.workspace.jobs_dir / f"20261129-101500-{command[0]}-0a1b2c")
    write_json(job.dir / "job.json", {"title": "t", "command": command, "started": time.time()})
    job.finish(state, result=result)  # type: ignore[arg-type]
    return job


def asked(run: Run, **changes: Any) -> dict[str, Any]:
    return {"run": run.id, **ShareSettings().model_dump(), "repo": "", "base_model": "", **changes}


def test_the_form_starts_with_the_settings_of_the_run(context: AppContext, run: Run) -> None:
    shown = share.shown(JobReader(context.workspace), run)
    assert shown["repo"] == "someone/a-run" and shown["describe_dataset"] and shown["samples"] == 4
    assert not shown["public"] and shown["job"] is None


def test_a_look_sends_nothing(context: AppContext, run: Run, started: list[list[str]]) -> None:
    share.look(context, asked(run, samples=0, public=True, note="--yes"))
    assert started == [["push", str(run.dir), "--public", "--samples=0", "--note=--yes", "--dry-run"]]
    for wrong in ({"repo": "no name"}, {"samples": -1}, {"run": "../.."}):
        with pytest.raises(UserError):
            share.look(context, asked(run) | wrong)
    assert len(started) == 1


def test_what_was_looked_at_is_what_is_sent(context: AppContext, run: Run, started: list[list[str]]) -> None:
    command = ["push", str(run.dir), "--samples=2", "--note=hello", "--dry-run"]
    job = ended_job(run, command, result={"repo": "someone/other"})
    share.send(context, job.id)
    assert started == [["push", str(run.dir), "--samples=2", "--note=hello", "--repo=someone/other", "--yes"]]


@pytest.mark.parametrize(
    ("command", "state", "result"),
    [
        (["push", "x", "--yes"], "finished", {"repo": "a/b"}),
        (["push", "x", "--dry-run"], "failed", None),
        (["push", "x", "--dry-run"], "stopped", None),
        (["merge", "--dry-run"], "finished", {"repo": "a/b"}),
    ],
)
def test_nothing_else_is_sent(
    context: AppContext, run: Run, started: list[list[str]], command: list[str], state: str, result: Any
) -> None:
    with pytest.raises(UserError):
        share.send(context, ended_job(run, command, state, result).id)
    with pytest.raises(UserError):
        share.send(context, "../../etc")
    assert not started


@pytest.mark.parametrize("name", ["", "neon", "/etc/passwd", "--help", "owner/name/../x.safetensors"])
def test_what_names_no_lora_of_the_hub_is_not_asked_for(context: AppContext, name: str) -> None:
    with pytest.raises(UserError, match="does not name a LoRA"):
        get(context, name)
