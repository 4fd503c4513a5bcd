"""A trainer that is loaded before it is wanted, with real processes: a stand-in takes the place of what is loaded."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from queue_trainer import ROOT, Quiet, add, command, loaded_in, wait, worker_process

from trainer.config import Config
from trainer.runs import spare, worker
from trainer.runs.settings import AppSettings, write_settings
from trainer.runs.spare import Spare, is_expected, note_expected
from trainer.runs.store import Workspace, process_is_alive
from trainer.runs.worker import expect_start, work

STAND_IN = ROOT / "tests/unit/queue_trainer.py"


def stand_in(name: str, *arguments: str) -> list[str]:
    """In place of ``trainer_command``."""
    return [sys.executable, str(STAND_IN), *(["spare", *arguments] if name == "spare" else arguments)]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(worker, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(spare, "trainer_command", stand_in)
    return Workspace(tmp_path)


@contextmanager
def working(workspace: Workspace) -> Iterator[threading.Thread]:
    """A worker that is told to expect a start, until nobody does any more."""
    assert note_expected(workspace, "cpu")
    thread = threading.Thread(target=work, args=(workspace, "cpu", Quiet()), kwargs=OPTIONS)
    thread.start()
    try:
        yield thread
    finally:
        os.utime(workspace.locks_dir / "expected-cpu", (1, 1))
        thread.join(120)
    assert not thread.is_alive()


OPTIONS = {"idle_seconds": 0.05, "command": command}


def test_a_loaded_trainer_is_the_runs_own_process(workspace: Workspace) -> None:
    with working(workspace):
        wait(lambda: len(loaded_in(workspace)) == 1)
        (loaded,) = loaded_in(workspace)
        told = time.time()
        run = add(workspace, "crash", hold=True)
        wait(lambda: run.read().state == "training")
        info = run.read()
        assert info.pid == loaded.pid == os.getsid(loaded.pid)
        assert process_is_alive(info.pid, info.pid_started)
        assert info.launched is not None
        assert loaded.create_time() < told <= info.launched
        (run.dir / "hold").unlink()
        wait(lambda: run.read().exit_code == 1)
        assert run.read().state == "failed"
        assert "out of luck" in run.log_path.read_text(), "what it writes goes to the run's log"

        other = add(workspace, "other")  # goes to the next one, or to a process of its own: it comes either way
        wait(lambda: other.read().exit_code == 0)
        wait(lambda: len(loaded_in(workspace)) == 1)
    assert loaded_in(workspace) == []


def test_a_loaded_trainer_ends_with_its_worker(workspace: Workspace) -> None:
    assert note_expected(workspace, "cpu")
    before = "from trainer.runs import spare; from test_spare import stand_in; spare.trainer_command = stand_in"
    process = worker_process(workspace, before=before)
    wait(lambda: len(loaded_in(workspace)) == 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait(lambda: loaded_in(workspace) == [])


def test_none_is_loaded_where_the_settings_say_so(workspace: Workspace) -> None:
    write_settings(workspace, AppSettings(trainer_ready_minutes=0))
    expect_start(workspace)
    assert not is_expected(workspace, "cpu")
    assert not workspace.locks_dir.exists(), "no worker was looked for"


def test_a_start_is_expected_for_some_minutes(workspace: Workspace) -> None:
    assert not is_expected(workspace, "cpu")
    assert note_expected(workspace, "cpu")
    assert is_expected(workspace, "cpu")
    assert not is_expected(workspace, "cuda:0")
    assert not note_expected(workspace, "cpu"), "known already"
    nine_minutes_ago = time.time() - 9 * 60
    os.utime(workspace.locks_dir / "expected-cpu", (nine_minutes_ago, nine_minutes_ago))
    assert is_expected(workspace, "cpu")
    write_settings(workspace, AppSettings(trainer_ready_minutes=8))
    assert not is_expected(workspace, "cpu")
    assert note_expected(workspace, "cpu")


def test_one_that_cannot_load_is_not_tried_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        spare, "trainer_command", lambda *words: [sys.executable, "-c", "open('tried', 'a').write('x')"]
    )
    monkeypatch.setattr("trainer.processes.ROOT", workspace.dir)
    with working(workspace):
        wait(lambda: (workspace.dir / "tried").exists())
        run = add(workspace, "one")
        wait(lambda: run.read().exit_code == 0)
        wait(lambda: loaded_in(workspace) == [])
    assert (workspace.dir / "tried").read_text() == "x"


def test_memory_that_others_need_is_left_to_them(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Spare(workspace, dict(os.environ), workspace.dir / "log")
    monkeypatch.setattr(spare, "ROOM_TO_START_BYTES", 1 << 60)
    kept.keep()
    assert loaded_in(workspace) == []
    monkeypatch.setattr(spare, "ROOM_TO_START_BYTES", 0)
    kept.keep()
    wait(lambda: len(loaded_in(workspace)) == 1)
    monkeypatch.setattr(spare, "ROOM_TO_STAY_BYTES", 1 << 60)
    kept.keep()
    wait(lambda: loaded_in(workspace) == [])
    run = workspace.create_run(Config())
    assert kept.start(command(run, workspace), run.log_path) is None


def test_other_commands_get_processes_of_their_own(workspace: Workspace) -> None:
    kept = Spare(workspace, dict(os.environ), workspace.dir / "log")
    kept.keep()
    try:
        assert kept.start(["/another/program"], workspace.dir / "log") is None
        assert len(loaded_in(workspace)) == 1
    finally:
        kept.let_go()
