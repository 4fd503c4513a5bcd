"""The queue, with real processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from queue_trainer import ROOT, Quiet, add, command, order, wait, worker_process

from trainer.config import Config
from trainer.errors import UserError
from trainer.runs import actions, worker
from trainer.runs.bin import Bin
from trainer.runs.queue import queued_runs
from trainer.runs.store import Run, Workspace, process_is_alive, this_process
from trainer.runs.worker import enqueue, ensure_worker, requeue, resume_command, work


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(worker, "_LOOK_SECONDS", 0.02)
    space = Workspace(tmp_path)
    yield space
    for run in space.runs():  # whatever failed, no process stays behind
        (run.dir / "hold").unlink(missing_ok=True)


def _work(workspace: Workspace, **options: object) -> list[str]:
    return work(workspace, "cpu", Quiet(), idle_seconds=0.05, command=command, **options)  # type: ignore[arg-type]


def test_runs_go_in_order_one_at_a_time_and_failures_do_not_stop_the_queue(workspace: Workspace) -> None:
    runs = [add(workspace, name) for name in ("one", "fail two", "crash three", "four")]
    assert _work(workspace) == [run.id for run in runs]
    names = ["one", "fail two", "crash three", "four"]
    assert order(workspace) == [f"{what} {name}" for name in names for what in ("start", "end")]
    infos = [run.read() for run in runs]
    assert [info.state for info in infos] == ["finished", "failed", "failed", "finished"]
    assert [info.exit_code for info in infos] == [0, 1, 1, 0]
    assert "out of luck" in (infos[2].error or "")
    assert "out of luck" in runs[2].log_path.read_text()


def test_requeued_run_goes_behind_those_that_waited(workspace: Workspace) -> None:
    first, second = add(workspace, "first"), add(workspace, "second")
    first.update(queued=time.time() + 1)
    assert [run.id for run in queued_runs(workspace)] == [second.id, first.id]


def test_a_run_that_cannot_be_read_or_started_does_not_stop_the_queue(workspace: Workspace) -> None:
    broken = add(workspace, "broken")
    broken.info_path.write_text("{")
    unstartable, good = add(workspace, "unstartable"), add(workspace, "good")

    def commands(run: Run, space: Workspace) -> list[str]:
        return ["/no/such/program"] if run.id == unstartable.id else command(run, space)

    assert work(workspace, "cpu", Quiet(), idle_seconds=0.05, command=commands) == [good.id]
    assert unstartable.read().state == "failed"
    assert "could not be started" in (unstartable.read().error or "")
    assert good.read().state == "finished"


def test_second_worker_leaves_at_once(workspace: Workspace) -> None:
    run = add(workspace, "long", hold=True)
    first = worker_process(workspace)
    wait(lambda: run.read().state == "training")
    assert _work(workspace) == []
    assert not ensure_worker(workspace, "cpu")
    (run.dir / "hold").unlink()
    assert first.wait(120) == 0
    assert run.read().state == "finished"


def test_training_survives_its_worker_and_the_next_worker_waits_for_it(workspace: Workspace) -> None:
    running, waiting = add(workspace, "running", hold=True), add(workspace, "waiting")
    first = worker_process(workspace)
    wait(lambda: running.read().state == "training")
    info = running.read()
    assert os.getsid(info.pid or 0) == info.pid
    first.kill()
    first.wait()
    assert process_is_alive(info.pid, info.pid_started)
    second = threading.Thread(target=_work, args=(workspace,))
    second.start()
    time.sleep(0.5)
    assert waiting.read().state == "queued"
    (running.dir / "hold").unlink()
    second.join(120)
    assert order(workspace) == ["start running", "end running", "start waiting", "end waiting"]
    assert [run.read().state for run in (running, waiting)] == ["finished", "finished"]


def test_a_run_started_from_a_terminal_is_waited_for(workspace: Workspace) -> None:
    terminal = workspace.create_run(Config(name="terminal"), queued=False)
    queued = add(workspace, "queued")
    second = threading.Thread(target=_work, args=(workspace,))
    second.start()
    time.sleep(0.3)
    assert queued.read().state == "queued"
    terminal.update(state="finished")
    second.join(120)
    assert queued.read().state == "finished"


def test_nothing_is_lost_when_runs_are_queued_while_workers_leave(workspace: Workspace) -> None:
    """Workers that leave after 50 ms, and runs queued at about that moment: each must be run by someone."""
    workers: list[threading.Thread] = []
    for number in range(8):
        add(workspace, f"run {number}")
        thread = threading.Thread(target=_work, args=(workspace,))
        thread.start()
        workers.append(thread)
        time.sleep(0.05 * (number % 4))
    for thread in workers:
        thread.join(120)
    assert [run.read().state for run in workspace.runs()] == ["finished"] * 8
    told = order(workspace)
    assert all(start.replace("start", "end") == end for start, end in zip(told[::2], told[1::2], strict=True))


def test_stopping_a_queued_run_takes_it_out(workspace: Workspace) -> None:
    one, two = add(workspace, "one"), add(workspace, "two")
    assert actions.ask(one, "stop").state == "stopped"
    assert _work(workspace) == [two.id]
    assert one.read().state == "stopped"
    with pytest.raises(UserError, match="stopped already"):
        actions.ask(one, "stop")


def test_requests_reach_a_running_trainer_only(workspace: Workspace) -> None:
    run = workspace.create_run(Config(), queued=False)
    for request in ("pause", "sample", "save", "stop"):
        actions.ask(run, request)  # type: ignore[arg-type]
        assert (run.control_dir / request).exists()
    run.update(state="paused")
    actions.ask(run, "resume")
    assert (run.control_dir / "resume").exists()
    with pytest.raises(UserError, match="still going"):
        actions.delete(run)
    run.update(state="finished")
    for request in ("pause", "sample", "save", "stop", "resume", "dance"):
        with pytest.raises(UserError):
            actions.ask(run, request)  # type: ignore[arg-type]
    item = actions.delete(run)
    assert not run.dir.exists()
    assert Bin(workspace.dir).restore(item.id) == run.dir
    assert run.read().state == "finished"


def test_deleting_a_queued_run(workspace: Workspace) -> None:
    run = add(workspace, "one")
    actions.delete(run)
    assert not run.dir.exists()
    with pytest.raises(UserError, match="no run folder"):
        run.update(state="queued")
    assert not run.dir.exists()


def test_resume_queues_a_stopped_run_again_and_starts_a_worker(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(worker, "ensure_workers", lambda space: started.append("all"))
    run = add(workspace, "one")
    run.update(state="stopped", ended=1.0, exit_code=3, error="x", step=40, **this_process())
    (run.control_dir / "stop").touch()
    assert actions.ask(run, "resume").state == "queued"
    info = run.read()
    assert (info.pid, info.ended, info.exit_code, info.error, info.step) == (None, None, None, None, 40)
    assert not (run.control_dir / "stop").exists()
    assert len(started) == 1
    with pytest.raises(UserError, match="is queued"):
        requeue(run)


def test_extending_passes_the_new_length_to_the_trainer(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ensure_workers", lambda space: None)
    run = add(workspace, "one")
    plain = resume_command(run, workspace)
    assert plain[1:] == ["-m", "trainer", "resume", str(run.dir), "--workspace", str(workspace.dir)]
    run.update(state="finished", max_steps=100)
    requeue(run, 150)
    assert resume_command(run, workspace) == [*plain, "--max-steps", "150"]
    run.update(max_steps=500, step=120)  # one that was stopped may be given fewer than planned
    assert resume_command(run, workspace) == [*plain, "--max-steps", "150"]
    run.update(max_steps=150, extend_to=None)  # the trainer took it over
    assert resume_command(run, workspace) == plain


def test_ensure_worker_starts_a_detached_process_that_ends_by_itself(workspace: Workspace) -> None:
    assert not ensure_worker(workspace, "cpu", idle_seconds=0.1)
    run = add(workspace, "one")
    with run.lock():  # keeps the worker from starting the real trainer
        assert ensure_worker(workspace, "cpu", idle_seconds=0.1)
        wait(lambda: len(_workers_of(workspace)) == 1)
        process = _workers_of(workspace)[0]
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
        run.update_locked(state="stopped")
    wait(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    assert run.read().state == "stopped"


def test_enqueue_creates_a_queued_run_and_asks_for_a_worker(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(worker, "ensure_workers", lambda space: started.append("all"))
    run = enqueue(workspace, Config(name="a"), device="cpu")
    assert (run.read().state, run.read().wanted_device) == ("queued", "cpu")
    assert started == ["all"]
    with pytest.raises(UserError, match="There is no device 'cuda:9' here; there are any, "):
        enqueue(workspace, Config(name="b"), device="cuda:9")
    assert workspace.runs() == [run]


def test_a_worker_told_to_end_leaves_the_training_alone(workspace: Workspace) -> None:
    run = add(workspace, "one", hold=True)
    process = worker_process(workspace)
    wait(lambda: run.read().state == "training")
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    info = run.read()
    assert process_is_alive(info.pid, info.pid_started)
    (run.dir / "hold").unlink()
    wait(lambda: run.status().state == "finished")


@pytest.mark.parametrize(
    ("visible", "device", "seen"),
    [
        (None, "cpu", ""),
        (None, "cuda:1", "1"),
        ("2,3", "cuda:1", "3"),
        ("2,3", "cuda", "2"),
        ("GPU-a", "cuda:0", "GPU-a"),
    ],
)
def test_a_trainer_sees_only_its_workers_device(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, seen: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert worker._environment(device)["CUDA_VISIBLE_DEVICES"] == seen


def _workers_of(workspace: Workspace) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "worker" in words and str(workspace.dir) in words:
            found.append(process)
    return found
