"""Several workers, pauses and kills, with real processes: no run is lost, none is trained twice at a time."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from queue_trainer import ROOT, Quiet, add, command, order, wait, worker_process

from tests.listed_gpus import list_two_gpus
from trainer.config import Config
from trainer.errors import UserError
from trainer.files import write_json
from trainer.runs import interrupted, queue, worker
from trainer.runs.gpus import gpus
from trainer.runs.interrupted import keep_workers
from trainer.runs.store import Run, Workspace
from trainer.runs.turns import gpu_turn
from trainer.runs.worker import ensure_workers, work

DIES = "import signal\ndef die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
BEFORE_THE_START = DIES + "worker.start_detached = die"
BEFORE_IT_IS_WRITTEN_DOWN = DIES + "Run.update_locked = die"
AFTER_IT_IS_WRITTEN_DOWN = DIES + "worker._see_to_its_end = die"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(worker, "_LOOK_SECONDS", 0.02)
    space = Workspace(tmp_path / "workspace")
    yield space
    for run in space.runs():  # whatever failed, no process stays behind
        (run.dir / "hold").unlink(missing_ok=True)


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A driver that lists two GPUs, whose locks are the test's own."""
    list_two_gpus(monkeypatch, tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    gpus.cache_clear()
    yield
    gpus.cache_clear()


def _start_worker(workspace: Workspace, device: str) -> threading.Thread:
    options = {"idle_seconds": 0.3, "command": command}
    thread = threading.Thread(target=work, args=(workspace, device, Quiet()), kwargs=options)
    thread.start()
    return thread


def _trained(workspace: Workspace) -> Counter[str]:
    return Counter(line.split()[1] for line in order(workspace) if line.startswith("start"))


def test_two_gpus_share_one_queue_and_a_run_for_one_of_them_waits_for_it(workspace: Workspace, two_gpus: None) -> None:
    first, second = add(workspace, "first", hold=True), add(workspace, "second", hold=True)
    add(workspace, "third", device="cuda:1")
    add(workspace, "fourth", device="cpu")
    workers = [_start_worker(workspace, device) for device in ("cuda:0", "cuda:1", "cpu")]
    wait(lambda: {run.read().state for run in (first, second)} == {"training"})
    devices = {run.read().queue_device: run for run in (first, second)}
    assert set(devices) == {"cuda:0", "cuda:1"}
    wait(lambda: "end fourth" in order(workspace))
    (devices["cuda:0"].dir / "hold").unlink()
    wait(lambda: devices["cuda:0"].read().state == "finished")
    assert "third" not in _trained(workspace)
    (devices["cuda:1"].dir / "hold").unlink()
    for thread in workers:
        thread.join(120)
    assert "start third on GPU-bbbb" in order(workspace)
    assert _trained(workspace) == Counter(["first", "second", "third", "fourth"])


def test_a_gpu_that_another_program_part_has_is_waited_for(workspace: Workspace, two_gpus: None) -> None:
    """A run of another workspace, a run from a terminal or a loaded picture model has the GPU's turn."""
    turn = gpu_turn("GPU-aaaa")
    assert turn.take()
    run = add(workspace, "one", device="cuda:0")
    thread = _start_worker(workspace, "cuda:0")
    wait(lambda: turn.wanted)
    assert run.read().state == "queued"
    turn.give_back()
    thread.join(120)
    assert run.read().state == "finished"
    assert not turn.wanted


def test_a_run_from_a_terminal_takes_only_its_own_gpu(workspace: Workspace, two_gpus: None) -> None:
    terminal = workspace.create_run(Config(name="terminal"), queued=False)
    terminal.update(gpu="bbbb", state="training")
    one, two = add(workspace, "one"), add(workspace, "two", device="cuda:1")
    workers = [_start_worker(workspace, device) for device in ("cuda:0", "cuda:1")]
    wait(lambda: one.read().state == "finished")
    assert two.read().state == "queued"
    terminal.update(state="finished")
    for thread in workers:
        thread.join(120)
    assert order(workspace)[-1] == "end two on GPU-bbbb"


def test_many_workers_and_orders_that_change_never_train_a_run_twice(workspace: Workspace, two_gpus: None) -> None:
    """Four processes on two GPUs take runs while they are moved about and the queue is paused and goes on."""
    runs = [add(workspace, f"run{number}") for number in range(6)]
    quick = "worker._LOOK_SECONDS = 0.02"
    processes = [worker_process(workspace, 3, device=f"cuda:{number % 2}", before=quick) for number in range(4)]
    end = time.monotonic() + 60
    while queue.queued_runs(workspace):
        assert time.monotonic() < end, "waited too long"
        for run in runs:
            _move_while_paused(workspace, run)
            time.sleep(0.05)  # workers need a moment between two pauses
    assert [process.wait(120) for process in processes] == [0, 0, 0, 0]
    assert _trained(workspace) == Counter(run.read().name for run in runs)
    assert {run.read().state for run in runs} == {"finished"}


def _move_while_paused(workspace: Workspace, run: Run) -> None:
    """No worker may take a run between the two looks at the queue."""
    queue.pause(workspace)
    before = queue.queued_runs(workspace)
    if run in before:
        assert queue.move(run, "first") == 1
        assert queue.queued_runs(workspace) == [run, *(other for other in before if other != run)]
    else:
        with pytest.raises(UserError, match="not waiting"):
            queue.move(run, "first")
        assert queue.queued_runs(workspace) == before
    queue.go_on(workspace)


def test_a_paused_run_leaves_its_device_to_the_next_and_has_it_before_later_ones(workspace: Workspace) -> None:
    """It is paused, the second is trained, and it goes on: the third waits until it has ended, badly as that is."""
    first, second = add(workspace, "crash", hold=True), add(workspace, "second", hold=True)
    thread = _start_worker(workspace, "cpu")
    wait(lambda: first.read().state == "training")
    first.update(state="paused")
    wait(lambda: second.read().state == "training")
    third = add(workspace, "third")
    first.update(state="training")
    (second.dir / "hold").unlink()
    wait(lambda: second.read().state == "finished")
    first.update(state="starting")
    (first.dir / "hold").unlink()
    thread.join(30)
    assert order(workspace) == ["start crash", "start second", "end second", "end crash", "start third", "end third"]
    assert (first.read().state, first.read().exit_code, third.read().state) == ("failed", 1, "finished")


def test_a_paused_queue_starts_nothing_and_lets_the_training_run_end(workspace: Workspace) -> None:
    going, waiting = add(workspace, "going", hold=True), add(workspace, "waiting")
    process = worker_process(workspace, 0.2)
    wait(lambda: going.read().state == "training")
    queue.pause(workspace)
    (going.dir / "hold").unlink()
    assert process.wait(20) == 0  # a worker has nothing to do in a paused queue
    assert (going.read().state, waiting.read().state) == ("finished", "queued")
    assert not worker.ensure_worker(workspace, "cpu")
    queue.go_on(workspace)
    assert work(workspace, "cpu", Quiet(), idle_seconds=0.05, command=command) == [waiting.id]


@pytest.mark.parametrize(
    "moment", [BEFORE_THE_START, BEFORE_IT_IS_WRITTEN_DOWN, AFTER_IT_IS_WRITTEN_DOWN], ids=["before", "amid", "after"]
)
def test_a_worker_killed_at_any_step_loses_no_run_and_starts_none_twice(workspace: Workspace, moment: str) -> None:
    one, two = add(workspace, "one"), add(workspace, "two")
    killed = worker_process(workspace, before=moment)
    assert killed.wait(20) == -signal.SIGKILL
    work(workspace, "cpu", Quiet(), idle_seconds=0.5, command=command)
    wait(lambda: {run.status().state for run in (one, two)} == {"finished"})
    assert order(workspace) == ["start one", "end one", "start two", "end two"]


def test_a_run_whose_lock_is_held_or_folder_deleted_does_not_hold_up_the_others(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_RUN_LOCK_SECONDS", 0.1)
    stuck, gone, good = add(workspace, "stuck"), add(workspace, "gone"), add(workspace, "good")
    listed = queue.queued_runs(workspace)
    workspace.delete_run(gone)
    monkeypatch.setattr(worker, "queued_runs", lambda space: [run for run in listed if _waits(run)])
    with stuck.lock():
        thread = _start_worker(workspace, "cpu")
        wait(lambda: good.read().state == "finished")
        assert stuck.read().state == "queued"
    thread.join(120)
    assert stuck.read().state == "finished"


def _waits(run: Run) -> bool:
    return not run.dir.exists() or run.read().state == "queued"


def test_waiting_runs_get_a_worker_again_and_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Workspace] = []

    def ensure(space: Workspace) -> None:
        asked.append(space)
        raise OSError("the disk is full")

    monkeypatch.setattr(interrupted, "ensure_workers", ensure)
    ended = keep_workers(workspace, 0.01)
    wait(lambda: len(asked) > 3)
    ended.set()


def test_each_device_gets_a_worker_only_where_a_run_waits_for_it(
    workspace: Workspace, two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(worker, "start_detached", lambda call, log: started.append(call[call.index("--device") + 1]))
    ensure_workers(workspace)
    assert started == []
    add(workspace, "one", device="cuda:1")
    ensure_workers(workspace)
    assert started == ["cuda:1"]
    add(workspace, "two")
    ensure_workers(workspace)
    assert started == ["cuda:1", "cuda:0", "cuda:1"]
    write_json(workspace.dir / "queue.json", {"paused": True})
    ensure_workers(workspace)
    assert len(started) == 3
