"""Jobs: real processes that outlive their starter and always tell the truth about their end."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from trainer.commands import job as job_command
from trainer.config import Config
from trainer.errors import StoppedOnRequest, UserError
from trainer.files import write_json
from trainer.jobs import Job, JobInfo, job, jobs, start_job
from trainer.runs.events import read_events
from trainer.runs.store import Workspace
from trainer.terminal import TerminalEvents

ROOT = Path(__file__).resolve().parents[2]


def _wait(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def _ended(one: Job) -> JobInfo:
    _wait(lambda: one.read().state != "running")
    return one.read()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def _blocking_job(workspace: Workspace) -> tuple[Job, Callable[[], None]]:
    """A job that waits (up to 30 s) for a run's lock, which is held here until the returned function is called."""
    run = workspace.create_run(Config())
    held = run.lock()
    held.__enter__()
    started = start_job(workspace, ["runs", "stop", run.id, "--workspace", str(workspace.dir)], "Stop")
    _wait(lambda: "trainer" in " ".join(psutil.Process(started.read().pid).cmdline()))
    return started, lambda: held.__exit__(None, None, None)


def test_a_job_returns_its_commands_answer(workspace: Workspace) -> None:
    started = start_job(workspace, ["runs", "list", "--workspace", str(workspace.dir)], "List the runs")
    assert started.read().title == "List the runs"
    info = _ended(started)
    assert info.state == "finished"
    assert info.result == {"runs": []}
    assert info.error is None
    assert info.ended is not None
    assert info.ended >= info.started
    assert [one.id for one in jobs(workspace)] == [started.id]
    assert job(workspace, started.id) == started


def test_wrong_input_becomes_the_jobs_problems(workspace: Workspace) -> None:
    info = _ended(start_job(workspace, ["runs", "stop", "none", "--workspace", str(workspace.dir)], "Stop"))
    assert info.state == "failed"
    assert info.error is not None
    assert info.error[0]["code"] == "run.unknown"
    assert "none" in info.error[0]["message"]


@pytest.mark.parametrize("command", [["no-such-command"], ["runs", "dance"], ["worker"]])
def test_commands_that_are_none_are_told(workspace: Workspace, command: list[str]) -> None:
    info = _ended(start_job(workspace, command, "x"))
    assert info.state == "failed"
    assert info.error is not None
    assert info.error[0]["code"] in ("job.command", "cli.arguments")


def test_a_job_runs_in_a_session_of_its_own_and_finishes(workspace: Workspace) -> None:
    started, let_go = _blocking_job(workspace)
    info = started.read()
    assert info.state == "running"
    assert info.pid is not None
    assert os.getsid(info.pid) == info.pid
    let_go()
    assert _ended(started).result == {"action": "stop", "run": workspace.runs()[0].id, "state": "stopped"}


def test_cancel_stops_a_job(workspace: Workspace) -> None:
    started, let_go = _blocking_job(workspace)
    started.cancel()
    info = _ended(started)
    let_go()
    assert (info.state, info.error) == ("stopped", None)
    assert workspace.runs()[0].read().state == "queued"
    started.cancel()
    assert started.read().state == "stopped"


def test_a_stop_that_a_package_made_another_error_of_is_a_stop(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As diffusers does when it is stopped while it imports a part of itself."""
    one = Job(workspace.jobs_dir / "one")
    one.dir.mkdir(parents=True)
    write_json(one.dir / "job.json", {"title": "One", "command": ["inspect", "x"], "started": time.time()})

    def interrupted(*arguments: object) -> None:
        write_json(one.dir / "cancel.json", time.time())
        raise RuntimeError("Failed to import diffusers")

    monkeypatch.setattr(job_command, "_run_command", interrupted)
    monkeypatch.setattr(job_command.signal, "signal", lambda *arguments: None)
    with pytest.raises(StoppedOnRequest):
        job_command.run(argparse.Namespace(job_dir=one.dir), TerminalEvents(io.StringIO()))
    assert one.read().state == "stopped" and one.read().error is None


def test_a_killed_job_is_failed_with_its_last_words(workspace: Workspace) -> None:
    started, let_go = _blocking_job(workspace)
    with started.log_path.open("a") as log:
        log.write("reading the pictures\n\n")
    os.kill(started.read().pid or 0, signal.SIGKILL)
    info = _ended(started)
    let_go()
    assert info.state == "failed"
    assert info.error is not None
    assert "reading the pictures" in info.error[0]["message"]


def test_a_job_frozen_against_sigterm_is_ended_by_the_second_cancel(workspace: Workspace) -> None:
    started, let_go = _blocking_job(workspace)
    pid = started.read().pid or 0
    os.kill(pid, signal.SIGSTOP)
    started.cancel()
    assert started.read().state == "running"
    write_json(started.dir / "cancel.json", time.time() - 60)
    started.cancel()
    assert _ended(started).state == "stopped"
    let_go()


def test_a_job_outlives_the_process_that_started_it(workspace: Workspace) -> None:
    run = workspace.create_run(Config())
    script = (
        "import sys; from pathlib import Path; from trainer.jobs import start_job;"
        "from trainer.runs.store import Workspace; w = Workspace(Path(sys.argv[1]));"
        "print(start_job(w, ['runs', 'stop', sys.argv[2], '--workspace', sys.argv[1]], 'Stop').id)"
    )
    with run.lock():
        call = [sys.executable, "-c", script, str(workspace.dir), run.id]
        job_id = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
        found = job(workspace, job_id)
        assert found.read().state == "running"
    assert _ended(found).state == "finished"


def test_an_internal_error_is_told_with_the_traceback_in_the_log(workspace: Workspace) -> None:
    run = workspace.create_run(Config(), queued=False)
    run.control_dir.rmdir()
    run.control_dir.write_text("a file where a folder belongs")
    started = start_job(workspace, ["runs", "save", run.id, "--workspace", str(workspace.dir)], "Save")
    info = _ended(started)
    assert info.state == "failed"
    assert info.error is not None
    assert info.error[0]["code"] == "internal"
    assert str(started.log_path) in info.error[0]["hint"]
    _wait(lambda: "Traceback" in started.log_path.read_text())


def test_a_job_whose_process_never_came_is_failed(workspace: Workspace) -> None:
    folder = workspace.jobs_dir / "x"
    folder.mkdir(parents=True)
    write_json(folder / "job.json", {"title": "t", "command": ["inspect"], "started": time.time()})
    assert Job(folder).read().state == "running"
    write_json(folder / "job.json", {"title": "t", "command": ["inspect"], "started": time.time() - 120})
    assert Job(folder).read().state == "failed"


def test_a_recycled_pid_is_not_the_job(workspace: Workspace) -> None:
    folder = workspace.jobs_dir / "x"
    folder.mkdir(parents=True)
    write_json(folder / "job.json", {"title": "t", "command": ["inspect"], "started": time.time()})
    write_json(folder / "process.json", {"pid": os.getpid(), "pid_started": 1.0})
    assert Job(folder).read().state == "failed"


def test_unknown_jobs_and_ids_that_lead_elsewhere(workspace: Workspace) -> None:
    for name in ("none", "..", "../runs", ""):
        with pytest.raises(UserError, match="There is no job"):
            job(workspace, name)
    assert jobs(workspace) == []


def test_events_of_a_job_are_written_to_its_folder(workspace: Workspace, tmp_path: Path) -> None:
    lora = tmp_path / "broken.safetensors"
    lora.write_bytes(b"no")
    started = start_job(workspace, ["inspect", str(lora)], "Inspect")
    assert _ended(started).state == "failed"
    assert started.events_path.exists()
    assert read_events(started.events_path) == []
    assert json.loads(started.result_path.read_text())["state"] == "failed"


def test_old_ended_jobs_are_cleared(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.jobs._KEPT_JOBS", 2)
    for number in range(4):
        folder = workspace.jobs_dir / f"old-{number}"
        folder.mkdir(parents=True)
        write_json(folder / "job.json", {"title": "t", "command": ["inspect"], "started": 1.0})
        os.utime(folder / "job.json", (number, number))
    started = start_job(workspace, ["runs", "list", "--workspace", str(workspace.dir)], "x")
    assert [one.id for one in jobs(workspace)] == [started.id, "old-3", "old-2"]
    _ended(started)


@pytest.mark.parametrize("outcome", ["1", '"x"', "[]", '{"state": "dancing"}', "{", "[" * 20_000])
def test_a_job_whose_outcome_cannot_be_read_counts_as_ended_without_a_word(outcome: str, workspace: Workspace) -> None:
    (workspace.jobs_dir / "a").mkdir(parents=True)
    write_json(workspace.jobs_dir / "a" / "job.json", {"title": "t", "command": ["merge"], "started": time.time()})
    ended = job(workspace, "a")
    ended.result_path.write_text(outcome)
    assert (ended.read().state, ended.read().error[0]["code"]) == ("failed", "job.died")  # type: ignore[index]


@pytest.mark.parametrize("order", ["1", "{}", '{"title": "t"}'])
def test_a_folder_without_an_order_is_no_job(order: str, workspace: Workspace) -> None:
    (workspace.jobs_dir / "a").mkdir(parents=True)
    (workspace.jobs_dir / "a" / "job.json").write_text(order)
    with pytest.raises(UserError, match="no job in"):
        job(workspace, "a").read()
