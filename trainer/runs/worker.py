"""The queue: one worker process per device runs the queued runs in order.

The worker is started on demand and ends when there is nothing to do. It and the trainers it starts live in sessions of
their own: the page, the app and even the worker may die without harm to a run.

Two locks keep it free of races. Whoever holds ``worker-<device>.lock`` is the worker. Becoming the worker, looking
for one and ceasing to be one happen under ``worker-<device>.door``; so a run that is queued before looking is either
seen by the worker before it leaves, or finds that there is none.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.config import Config
from trainer.errors import UserError
from trainer.processes import start_detached, started_at, trainer_command
from trainer.runs import control
from trainer.runs.events import EventSink
from trainer.runs.store import ALIVE, ENDED, Run, Workspace

IDLE_SECONDS = 30.0
_LOOK_SECONDS = 0.5

RunCommand = Callable[[Run, Workspace], list[str]]


def enqueue(workspace: Workspace, config: Config, *, device: str | None = None) -> Run:
    """Put a new run at the end of the queue and see to it that a worker is there."""
    run = workspace.create_run(config)
    ensure_worker(workspace, device or default_device())
    return run


def requeue(run: Run, max_steps: int | None = None, *, device: str | None = None) -> Run:
    """Put an ended run into the queue again: it continues at its newest checkpoint, up to ``max_steps`` when given.

    Raises UserError while the run is queued or going.
    """
    with run.lock():
        info = run.status_locked()
        if info.state not in ENDED:
            raise UserError("run.alive", f"The run {run.id} is {info.state}.", "Wait for its end, or stop it first.")
        control.clear(run.control_dir)
        run.update_locked(
            state="queued",
            queued=time.time(),
            pid=None,
            pid_started=None,
            ended=None,
            exit_code=None,
            error=None,
            extend_to=max_steps or info.extend_to,
        )
    ensure_worker(run.workspace, device or default_device())
    return run


def ensure_worker(workspace: Workspace, device: str, *, idle_seconds: float = IDLE_SECONDS) -> bool:
    """Start the worker of a device unless there is one, or nothing is queued. Returns whether one was started."""
    if not queued_runs(workspace):
        return False
    with _door(workspace, device):
        try:
            with _worker_lock(workspace, device):
                pass
        except Timeout:
            return False
    arguments = ["--workspace", str(workspace.dir), "--device", device, "--idle-seconds", str(idle_seconds)]
    start_detached(trainer_command("worker", *arguments), worker_log(workspace, device))
    return True


def queued_runs(workspace: Workspace) -> list[Run]:
    """The queue, next run first."""
    waiting: dict[Run, float] = {}
    for run in workspace.runs():
        with suppress(UserError):
            info = run.read()
            if info.state == "queued":
                waiting[run] = info.queued or info.created
    return sorted(waiting, key=lambda run: waiting[run])


def default_device() -> str:
    """The device of the queue where none is named; looks for the driver, as asking torch takes seconds."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    return "cuda:0" if driver and not hidden else "cpu"


def worker_log(workspace: Workspace, device: str) -> Path:
    """Where a worker's output goes."""
    return workspace.locks_dir / f"worker-{_file_name(device)}.log"


def resume_command(run: Run, workspace: Workspace) -> list[str]:
    """The process that trains a run."""
    info = run.read()
    extend = info.extend_to is not None and info.extend_to > (info.max_steps or 0)
    more = ["--max-steps", str(info.extend_to)] if extend else []
    return trainer_command("resume", str(run.dir), "--workspace", str(workspace.dir), *more)


def work(
    workspace: Workspace,
    device: str,
    events: EventSink,
    *,
    idle_seconds: float = IDLE_SECONDS,
    command: RunCommand = resume_command,
) -> list[str]:
    """Run queued runs until there have been none for ``idle_seconds``. Returns the ids of the runs worked on.

    Returns at once when the device has a worker already.
    """
    lock = _worker_lock(workspace, device)
    with _door(workspace, device):
        try:
            lock.acquire()
        except Timeout:
            return []
    try:
        return _work_as_the_worker(workspace, device, events, lock, idle_seconds, command)
    finally:
        lock.release()


def _work_as_the_worker(
    workspace: Workspace, device: str, events: EventSink, lock: FileLock, idle_seconds: float, command: RunCommand
) -> list[str]:
    done: list[str] = []
    idle_since = time.monotonic()
    while True:
        if _device_is_taken(workspace, device):
            idle_since = time.monotonic()
            time.sleep(_LOOK_SECONDS)
            continue
        run = next(iter(queued_runs(workspace)), None)
        if run is not None:
            with suppress(UserError):  # a run that cannot be read or was taken away must not hold up the others
                if _train(run, workspace, device, events, command):
                    done.append(run.id)
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since < idle_seconds:
            time.sleep(_LOOK_SECONDS)
        elif _leave(workspace, device, lock):
            return done


def _train(run: Run, workspace: Workspace, device: str, events: EventSink, command: RunCommand) -> bool:
    """Start a queued run's trainer and wait for its end. False when the run is not queued any more."""
    with run.lock():  # nobody can stop, delete or start the run between looking at its state and writing its pid
        if run.read().state != "queued":
            return False
        try:
            process = start_detached(command(run, workspace), run.log_path, env=_environment(device))
        except OSError as error:
            run.update_locked(state="failed", ended=time.time(), error=f"The trainer could not be started: {error}.")
            return False
        run.update_locked(
            state="starting", pid=process.pid, pid_started=started_at(process.pid), queue_device=device, error=None
        )
    events.emit("state", state=f"{run.id} started")
    code = process.wait()
    with run.lock():
        info = run.status_locked()
        if info.state in ENDED:  # not when the user has queued it again already
            info = run.update_locked(exit_code=code)
    events.emit("state", state=f"{run.id} {info.state}")
    return True


def _device_is_taken(workspace: Workspace, device: str) -> bool:
    """Whether a run that this worker has not started is going on its device."""
    for run in workspace.runs():
        with suppress(UserError):
            info = run.status()
            if info.state in ALIVE and info.queue_device in (None, device):
                return True
    return False


def _leave(workspace: Workspace, device: str, lock: FileLock) -> bool:
    """Cease to be the worker unless a run has been queued meanwhile."""
    with _door(workspace, device):
        if queued_runs(workspace):
            return False
        lock.release()
        return True


def _environment(device: str) -> dict[str, str]:
    """The environment in which a trainer sees only the worker's device."""
    if not device.startswith("cuda"):
        return {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    index = device.partition(":")[2] or "0"
    allowed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    visible = allowed[int(index)] if int(index) < len(allowed) else index
    return {**os.environ, "CUDA_VISIBLE_DEVICES": visible}


def _worker_lock(workspace: Workspace, device: str) -> FileLock:
    return _lock(workspace, f"worker-{_file_name(device)}.lock", timeout=0)


def _door(workspace: Workspace, device: str) -> FileLock:
    return _lock(workspace, f"worker-{_file_name(device)}.door", timeout=30)


def _lock(workspace: Workspace, name: str, timeout: float) -> FileLock:
    workspace.locks_dir.mkdir(parents=True, exist_ok=True)
    return FileLock(workspace.locks_dir / name, timeout=timeout)


def _file_name(device: str) -> str:
    return device.replace(":", "-")
