"""Runs that ended with the machine, or were killed."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from queue_trainer import add

from trainer.runs import queue, worker
from trainer.runs.interrupted import interrupted_runs, leave, put_back
from trainer.runs.store import Workspace, this_process


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_after_a_restart_of_the_machine(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of before are gone, their numbers may be others' now; what was interrupted goes before what waited."""
    before_boot = psutil.boot_time() - 3600
    waiting = add(workspace, "waiting")
    older, newer, ended = add(workspace, "older"), add(workspace, "newer"), add(workspace, "ended")
    older.update(state="training", pid=os.getpid(), pid_started=before_boot, step=40)
    newer.update(state="paused", pid=2**22 + 5, pid_started=before_boot)
    ended.update(state="failed", error="The GPU's memory is full.")
    assert [run.read().name for run in interrupted_runs(workspace)] == ["older", "newer"]
    assert "machine was restarted" in (older.read().error or "")
    assert (older.read().state, older.read().interrupted) == ("failed", "machine")
    monkeypatch.setattr(worker, "ensure_workers", lambda space: None)
    assert put_back(workspace) == [older, newer]
    assert queue.queued_runs(workspace) == [older, newer, waiting]
    info = older.read()
    assert (info.interrupted, info.error, info.step, info.pid) == (None, None, 40, None)
    assert interrupted_runs(workspace) == []
    assert ended.read().state == "failed"


def test_interrupted_runs_can_be_left_as_they_are(workspace: Workspace) -> None:
    run = add(workspace, "one")
    run.update(state="training", pid=2**22 + 5, pid_started=this_process()["pid_started"])
    assert interrupted_runs(workspace) == [run]
    leave(workspace)
    assert interrupted_runs(workspace) == []
    assert run.read().state == "failed"


def test_a_process_that_is_gone_without_a_word_is_interrupted_too(workspace: Workspace) -> None:
    run = add(workspace, "one")
    run.update(state="training", pid=2**22 + 5, pid_started=this_process()["pid_started"])
    assert (run.status().interrupted, run.read().error) == ("process", "The process ended without saying why.")
