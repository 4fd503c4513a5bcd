"""The queue with the real trainer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from trainer.config import Config
from trainer.config_io import save_config
from trainer.runs import actions
from trainer.runs.events import read_events
from trainer.runs.store import Run, Workspace
from trainer.runs.worker import enqueue, ensure_worker, requeue

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "cpu"


def _wait(condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def _steps(run: Run) -> list[int]:
    return [event["step"] for event in read_events(run.events_path) if event["type"] == "metric" and "loss" in event]


def test_the_queue_trains_goes_on_after_failures_and_extends(
    workspace: Workspace, config_of: Callable[..., Config], tmp_path: Path
) -> None:
    """Runs queued by an app that is killed at once: trained all the same, in order, one at a time."""
    config = tmp_path / "first.yaml"
    save_config(config_of(name="first", train__max_steps=4), config)
    bad = workspace.create_run(config_of(name="bad", model__base=str(tmp_path)))
    script = (
        "import os, sys; from pathlib import Path; from trainer.config_io import load_config;"
        "from trainer.runs.store import Workspace; from trainer.runs.worker import enqueue;"
        "print(enqueue(Workspace(Path(sys.argv[1])), load_config(Path(sys.argv[2])), device='cpu').id, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    call = [sys.executable, "-c", script, str(workspace.dir), str(config)]
    killed = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    first = workspace.run(killed.stdout.strip())
    _wait(lambda: first.status().state in ("finished", "failed"))
    assert first.read().state == "finished", first.read().error
    assert first.output_path.is_file()
    assert _steps(first) == [1, 2, 3, 4]
    assert bad.read().state == "failed"
    assert str(tmp_path) in (bad.read().error or "")
    assert (bad.read().exit_code, first.read().exit_code) == (2, 0)
    assert (bad.read().ended or 0) < (first.read().started or 0)

    requeue(first, 6)
    _wait(lambda: first.status().state == "finished")
    assert _steps(first) == [1, 2, 3, 4, 5, 6]
    assert (first.config().train.max_steps, first.read().max_steps) == (6, 6)


def test_stop_resume_and_a_killed_trainer(workspace: Workspace, config_of: Callable[..., Config]) -> None:
    run = workspace.create_run(config_of(train__max_steps=2000))
    assert ensure_worker(workspace, DEVICE, idle_seconds=5)
    _wait(lambda: run.status().step > 3)
    assert actions.ask(run, "stop").state == "training"
    _wait(lambda: run.status().state == "stopped")
    step = run.read().step
    assert run.read().exit_code == 3
    actions.ask(run, "resume")
    ensure_worker(workspace, DEVICE, idle_seconds=5)
    _wait(lambda: run.status().state == "training" and run.read().step > step)
    assert _steps(run)[step] == step + 1
    os.kill(run.read().pid or 0, signal.SIGKILL)
    _wait(lambda: run.status().state == "failed")
    assert "ended without saying why" in (run.read().error or "")
    _wait(lambda: run.read().exit_code == -signal.SIGKILL)
    assert "as it does when memory runs out" in (run.read().error or "")


def test_a_run_queued_for_several_devices_is_trained_by_a_process_on_each(
    workspace: Workspace, tiny: Callable[..., Config]
) -> None:
    """As the page does it. The worker starts one, that starts the others, and learns how it ended."""
    run = enqueue(workspace, tiny(train__max_steps=4), device="cpu,cpu")
    _wait(lambda: run.status().state in ("finished", "failed", "stopped"))
    info = run.read()
    assert (info.state, info.processes, info.step, info.queue_device) == ("finished", 2, 4, "cpu"), info.error
    assert _steps(run) == [1, 2, 3, 4] and run.output_path.is_file()
    _wait(lambda: run.read().exit_code == 0)
