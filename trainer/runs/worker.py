"""The workers of the queue: one process per device runs the waiting runs that suit it, in the queue's order.

A worker is started on demand and ends when there is nothing to do. It and the trainers it starts live in sessions of
their own: the page, the app and even the worker may die without harm to a run.

Two locks keep it free of races. Whoever holds ``worker-<device>.lock`` is the worker. Becoming the worker, looking
for one and ceasing to be one happen under ``worker-<device>.door``; so a run that is queued before looking is either
seen by the worker before it leaves, or finds that there is none. Which run is taken is settled under the queue's lock
and that run's own, so that no run goes to two workers.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.accelerators import DEVICE_VARIABLE, DEVICES
from trainer.config import Config
from trainer.errors import UserError
from trainer.processes import process_facts, start_detached, trainer_command
from trainer.remote.hosts import SSH, check_place, host_name
from trainer.runs import control, queue
from trainer.runs.events import EventSink
from trainer.runs.gpus import CPU, default_device, devices_of, gpu_of, worker_devices
from trainer.runs.queue import queue_lock, queued_runs, read_queue, suits
from trainer.runs.spare import Spare, is_expected, note_expected
from trainer.runs.store import COMPUTING, ENDED, Run, RunInfo, Workspace
from trainer.runs.turns import Turn, gpu_turn

IDLE_SECONDS = 30.0
_LOOK_SECONDS = 0.5
_RUN_LOCK_SECONDS = 2.0  # a run that some process does not let go of must not hold up the others

_SIGKILL = 9
_KILLED = "It was killed: by somebody, or by the system, as it does when memory runs out."

RunCommand = Callable[[Run, Workspace], list[str]]
Trained = tuple[Run, subprocess.Popen[bytes]]
"""A run and the process that trains it."""


def enqueue(
    workspace: Workspace,
    config: Config,
    *,
    device: str | None = None,
    checkpoint: Path | None = None,
    changed_from: str | None = None,
) -> Run:
    """Put a new run at the end of the queue and see to it that a worker is there.

    Without a ``device`` it goes to any GPU that is free, or the CPU where there is none. Where a ``checkpoint`` of
    another run is given, it goes on from there: see ``Workspace.create_run``. ``changed_from`` is the id of the run
    whose settings these were made of. Raises UserError when there is no such device.
    """
    check_place(workspace, device)
    run = workspace.create_run(config, wanted_device=device, checkpoint=checkpoint, changed_from=changed_from)
    ensure_workers(workspace)
    return run


def requeue(run: Run, max_steps: int | None = None) -> Run:
    """Put an ended run into the queue again: it continues at its newest checkpoint, up to ``max_steps`` when given.

    Raises UserError while the run is queued or going.
    """
    queue.forget_place(run)
    with run.lock():
        info = run.status_locked()
        if info.state not in ENDED:
            raise UserError("run.alive", f"The run {run.id} is {info.state}.", "Wait for its end, or stop it first.")
        if info.host is None:  # what was asked of a run that goes on elsewhere is still to be passed on
            control.clear(run.control_dir)
        run.update_locked(
            state="queued",
            queued=time.time(),
            pid=None,
            pid_started=None,
            ended=None,
            exit_code=None,
            error=None,
            interrupted=None,
            extend_to=max_steps or info.extend_to,
        )
    ensure_workers(run.workspace)
    return run


def ensure_workers(workspace: Workspace) -> None:
    """See to it that each device has its worker for which a run waits."""
    waiting = queued_runs(workspace)
    if waiting:
        for device in (*worker_devices(), *_hosts_of(waiting)):
            ensure_worker(workspace, device)


def expect_start(workspace: Workspace) -> None:
    """A run may be started soon: see to it that a trainer is loaded by then, where the settings allow it."""
    device = default_device()
    if note_expected(workspace, device):
        ensure_worker(workspace, device)


def ensure_worker(workspace: Workspace, device: str, *, idle_seconds: float = IDLE_SECONDS) -> bool:
    """Start the worker of a device unless there is one, or nothing is there to do. Returns whether one was started."""
    if not _something_waits(workspace, device) and not is_expected(workspace, device):
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


def worker_log(workspace: Workspace, device: str) -> Path:
    """Where a worker's output goes."""
    return workspace.locks_dir / f"worker-{_file_name(device)}.log"


def resume_command(run: Run, workspace: Workspace) -> list[str]:
    """The process that trains a run."""
    info = run.read()
    extend = info.extend_to is not None and info.extend_to > info.step
    more = ["--max-steps", str(info.extend_to)] if extend else []
    host = _host_of(info)
    if host is not None:
        where = ["--on", host]
    else:
        where = ["--devices", str(info.wanted_device)] if _needs_several(info) else []
    return trainer_command("resume", str(run.dir), "--workspace", str(workspace.dir), *more, *where)


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
    spare = Spare(workspace, _environment(device), worker_log(workspace, device))
    try:
        return _work_as_the_worker(workspace, device, events, lock, idle_seconds, command, spare)
    finally:
        spare.let_go()
        lock.release()


def _work_as_the_worker(
    workspace: Workspace,
    device: str,
    events: EventSink,
    lock: FileLock,
    idle_seconds: float,
    command: RunCommand,
    spare: Spare,
) -> list[str]:
    done: list[str] = []
    resting: list[Trained] = []
    turn = _turn(device)
    idle_since = time.monotonic()
    while True:
        taken, busy = None, False
        resting = [trained for trained in resting if not _has_ended(*trained, events, 0)]
        if _something_waits(workspace, device):
            idle_since = time.monotonic()
            busy = _device_is_taken(workspace, device, turn)
            if not busy:
                taken = _take_next(workspace, device, command, spare)
        else:
            if turn is not None:
                turn.give_back()
            if is_expected(workspace, device):
                idle_since = time.monotonic()
                spare.keep()
            else:
                spare.let_go()
                if time.monotonic() - idle_since >= idle_seconds and _leave(workspace, device, lock):
                    return done
        if taken is None:
            time.sleep(_LOOK_SECONDS * (4 if busy else 1))  # a look reads every run: that can go on for hours
            continue
        done.append(taken[0].id)
        if not _see_to_its_end(*taken, events):
            resting.append(taken)
        idle_since = time.monotonic()


def _something_waits(workspace: Workspace, device: str) -> bool:
    """Whether there is work for the worker of a device now."""
    return not read_queue(workspace).paused and bool(_waiting_for(workspace, device))


def _waiting_for(workspace: Workspace, device: str) -> list[Run]:
    """The waiting runs that suit a device, next one first."""
    waiting = []
    for run in queued_runs(workspace):
        with suppress(UserError):
            if suits(run.read(), device):
                waiting.append(run)
    return waiting


def _take_next(workspace: Workspace, device: str, command: RunCommand, spare: Spare) -> Trained | None:
    """Start the first run that can be started; None when there is none any more, or the queue has been paused."""
    with queue_lock(workspace):
        if read_queue(workspace).paused:
            return None
        for run in _waiting_for(workspace, device):
            with suppress(UserError, Timeout):  # a run that cannot be read or was taken away must not hold up others
                process = _start(run, workspace, device, command, spare)
                if process is not None:
                    return run, process
    return None


def _start(
    run: Run, workspace: Workspace, device: str, command: RunCommand, spare: Spare
) -> subprocess.Popen[bytes] | None:
    """Start a waiting run's trainer, the loaded one where there is one. None when the run waits no more, or cannot be
    started.

    A worker that is killed between the start and writing it down leaves the run waiting for whoever comes first: the
    trainer, which makes the run its own under the same lock, or another worker, whose trainer then finds it taken.
    """
    with run.lock(_RUN_LOCK_SECONDS):  # nobody can stop, delete or start the run before its pid is written
        info = run.read()
        if info.state != "queued":
            return None
        arguments, launched = command(run, workspace), time.time()
        try:
            if _host_of(info) is not None:
                process = start_detached(arguments, run.connection_log_path)  # train.log is the one there
            elif _needs_several(info):
                process = start_detached(arguments, run.log_path)
            else:
                process = spare.start(arguments, run.log_path) or start_detached(
                    arguments, run.log_path, env=_environment(device)
                )
        except OSError as error:
            run.update_locked(state="failed", ended=time.time(), error=f"The trainer could not be started: {error}.")
            return None
        run.update_locked(
            state="starting",
            **process_facts(process.pid),
            launched=launched,
            queue_device=device,
            gpu=None,
            error=None,
        )
        return process


def _see_to_its_end(run: Run, process: subprocess.Popen[bytes], events: EventSink) -> bool:
    """Wait for a trainer's end. False as soon as the run is paused: it leaves its device to others then."""
    events.emit("state", state=f"{run.id} started")
    while not _has_ended(run, process, events, _LOOK_SECONDS):
        with suppress(UserError):  # the folder may be gone
            if run.read().state == "paused":
                return False
    return True


def _has_ended(run: Run, process: subprocess.Popen[bytes], events: EventSink, patience_seconds: float) -> bool:
    """Whether a trainer ends before patience does; what it could not write down itself then is."""
    try:
        code = process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        return False
    with suppress(UserError):  # the folder may be gone
        with run.lock():
            info = run.status_locked()
            if info.state in ENDED:  # not when the user has queued it again already
                killed = info.interrupted == "process" and code == -_SIGKILL and info.host is None
                info = run.update_locked(exit_code=code, error=f"{info.error} {_KILLED}" if killed else info.error)
        events.emit("state", state=f"{run.id} {info.state}")
    return True


def _device_is_taken(workspace: Workspace, device: str, turn: Turn | None) -> bool:
    """Whether something that this worker has not started computes on its device: a run of this workspace or, on a GPU,
    whatever has its turn there. In that case the turn is asked for until the device is free."""
    for run in workspace.runs():
        with suppress(UserError):
            info = run.status()
            if info.state in COMPUTING and _is_on(info, device):
                return True
    if turn is None:
        return False
    if not turn.take(0):
        return True
    turn.give_back()  # the trainer takes it
    return False


def _is_on(info: RunInfo, device: str) -> bool:
    """Whether a run that is going computes on a device, or may: one from a terminal tells it only once it has begun."""
    if _host_of(info) is not None or host_name(device) is not None:
        return device == info.queue_device
    if info.queue_device is not None:
        return device in (info.queue_device, *(devices_of(info.wanted_device) if info.wanted_device else ()))
    gpu = gpu_of(device)
    if info.gpu is not None:
        return gpu is not None and gpu.uuid.removeprefix("GPU-") in ("", info.gpu)
    return gpu is None if info.device == "cpu" else True


def _host_of(info: RunInfo) -> str | None:
    """The other machine that a run is on, or is queued for; None for this one."""
    return info.host or host_name(info.wanted_device)


def _hosts_of(waiting: Sequence[Run]) -> list[str]:
    """The hosts, as devices, that some of the runs wait for."""
    names = set()
    for run in waiting:
        with suppress(UserError):
            names.add(_host_of(run.read()))
    return sorted(SSH + name for name in names if name is not None)


def _needs_several(info: RunInfo) -> bool:
    """Whether a run waits for several devices at once."""
    return info.wanted_device is not None and len(devices_of(info.wanted_device)) > 1


def _turn(device: str) -> Turn | None:
    gpu = gpu_of(device)
    return gpu_turn(gpu.uuid) if gpu is not None and gpu.uuid else None


def _leave(workspace: Workspace, device: str, lock: FileLock) -> bool:
    """Cease to be the worker unless a run has been queued meanwhile."""
    with _door(workspace, device):
        if _something_waits(workspace, device):
            return False
        lock.release()
        return True


def _environment(device: str) -> dict[str, str]:
    """The environment in which a trainer sees only the worker's device."""
    if not device.startswith("cuda"):
        kind = device.partition(":")[0]
        return {**os.environ, "CUDA_VISIBLE_DEVICES": "", DEVICE_VARIABLE: kind if kind in DEVICES else CPU}
    gpu = gpu_of(device)
    if gpu is not None and gpu.uuid:  # a number would depend on how CUDA counts
        return {**os.environ, "CUDA_VISIBLE_DEVICES": gpu.uuid}
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
