"""The queue as the page shows it: what is going where, what waits, and about when it starts. No Gradio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainer.remote.hosts import SSH, host_name
from trainer.runs.gpus import device_holder, devices_of, gpu_of, gpus, worker_devices
from trainer.runs.queue import suits
from trainer.runs.store import ALIVE, COMPUTING, RunInfo
from ui.run_html import STATE_WORDS, together
from ui.run_list import RunList

Seconds = Callable[[RunInfo], float | None]
"""The time that what is left of a run takes; None where nothing is known of it."""


@dataclass(frozen=True)
class Going:
    """A run whose process lives. ``percent`` of its steps are done; ``left`` says how long it takes still, if known."""

    id: str
    name: str
    state: str
    word: str
    device: str
    percent: int
    left: str


@dataclass(frozen=True)
class Waiting:
    """A run that waits for ``device``, empty for any; ``start`` says when it is its turn, or what it waits for."""

    id: str
    name: str
    device: str
    start: str


@dataclass(frozen=True)
class QueueView:
    """All of the panel. ``interrupted`` are names of runs; ``devices`` are what a run can wait for, with names."""

    paused: bool
    going: tuple[Going, ...]
    waiting: tuple[Waiting, ...]
    interrupted: tuple[str, ...]
    devices: tuple[tuple[str, str], ...]


def queue_view(runs: RunList, seconds_left: Seconds) -> QueueView:
    """The queue of a workspace."""
    by_id = {info.id: info for info in runs.infos}
    going = [info for info in reversed(runs.infos) if info.state in ALIVE]
    waiting = [by_id[run_id] for run_id in runs.queue]
    others = other_jobs(going) if waiting else {}
    places = [*worker_devices(), *runs.hosts]
    starts = [None] * len(waiting) if runs.paused else start_times(waiting, going, seconds_left, others, runs.hosts)
    return QueueView(
        paused=runs.paused,
        going=tuple(_going(info, seconds_left(info)) for info in going),
        waiting=tuple(
            _waiting(info, start, others, places, runs.paused) for info, start in zip(waiting, starts, strict=True)
        ),
        interrupted=tuple(info.name for info in reversed(runs.infos) if info.interrupted and info.state == "failed"),
        devices=device_choices(runs.hosts),
    )


def other_jobs(going: Sequence[RunInfo]) -> dict[str, str]:
    """What computes on a device that no run here computes on, by device: captioning, another workspace's run ..."""
    own = {device_of(info) for info in going if info.state in COMPUTING}
    holders = {device: device_holder(device) for device in worker_devices() if device not in own}
    return {device: str(holder) for device, holder in holders.items() if holder and not holder.gives_way}


def start_times(
    waiting: Sequence[RunInfo],
    going: Sequence[RunInfo],
    seconds_left: Seconds,
    others: Mapping[str, str],
    hosts: Sequence[str] = (),
) -> list[float | None]:
    """When each waiting run starts, in seconds from now: it goes to the device that is free first among its own.

    None where a run before it, or one of the ``other_jobs``, takes nobody knows how long. Paused runs hold nobody up.
    """
    places = [*worker_devices(), *hosts]
    free: dict[str, float | None] = {device: None if device in others else 0.0 for device in places}
    for info in going:
        if info.state not in COMPUTING:
            continue
        device = device_of(info)
        before, left = free.get(device), seconds_left(info)
        free[device] = None if before is None or left is None else max(before, left)
    starts: list[float | None] = []
    for info in waiting:
        known = [(start, device) for device, start in free.items() if start is not None and suits(info, device)]
        if not known:
            starts.append(None)
            continue
        start, device = min(known)
        starts.append(start)
        takes = seconds_left(info)
        free[device] = None if takes is None else start + takes
    return starts


def runs_before(runs: RunList, run_id: str) -> int | None:
    """How many runs end or start before a waiting one gets a device; None where it does not wait (any more)."""
    if run_id not in runs.queue:
        return None
    by_id = {info.id: info for info in runs.infos}
    mine = [device for device in (*worker_devices(), *runs.hosts) if suits(by_id[run_id], device)]
    going = [info for info in runs.infos if info.state in COMPUTING and device_of(info) in mine]
    ahead = [other for other in runs.queue[: runs.queue.index(run_id)] if _share_a_device(by_id[other], mine)]
    free = len(mine) - len({device_of(info) for info in going})
    return 0 if len(ahead) < free else len(going) + len(ahead)


def start_word(runs: RunList, run_id: str) -> str:
    """What became of a run that was just put into the queue."""
    before = runs_before(runs, run_id)
    if before is None:
        return "It starts now."
    if runs.paused:
        return "The queue is paused: it starts when you let the queue go on, on the Runs tab."
    if before == 0:
        job = _in_the_way(runs, run_id)
        return f"It starts by itself when the GPU is free: {job}." if job else "It starts now."
    return f"It waits behind {before} other {'run' if before == 1 else 'runs'}, and starts by itself."


def _in_the_way(runs: RunList, run_id: str) -> str:
    """One of the ``other_jobs``, where they have all devices that a run may be trained on."""
    info = next(info for info in runs.infos if info.id == run_id)
    others = other_jobs(runs.infos)
    jobs = [others.get(device, "") for device in worker_devices() if suits(info, device)]
    return jobs[0] if jobs and all(jobs) else ""


def device_of(info: RunInfo) -> str:
    """The device that a run which is going uses, by the queue's names."""
    if info.host is not None:
        return SSH + info.host
    if info.queue_device is not None:
        return info.queue_device
    by_uuid = {gpu.uuid.removeprefix("GPU-"): gpu.device for gpu in gpus()}
    if info.gpu is not None:
        return by_uuid.get(info.gpu, info.gpu)
    return "cpu" if info.device == "cpu" else worker_devices()[0]


def device_choices(hosts: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """What a run can be queued for: value and name. Nothing to choose where there is no GPU and no other machine."""
    found, elsewhere = gpus(), tuple((host, f"{host_name(host)}, over SSH") for host in hosts)
    if not found:
        return (("", "this machine"), *elsewhere) if elsewhere else ()
    anywhere = "any free GPU" if len(found) > 1 else "the GPU"
    each = [(gpu.device, f"{gpu.name} ({gpu.device.removeprefix('cuda:')})") for gpu in found] if len(found) > 1 else []
    together = [(",".join(gpu.device for gpu in found), f"all {len(found)} GPUs together")] if len(found) > 1 else []
    return (("", anywhere), *each, *together, ("cpu", "the processor"), *elsewhere)


def device_name(device: str) -> str:
    """A device in words."""
    if device == "cpu":
        return "processor"
    gpu = gpu_of(device)
    if gpu is None:
        return host_name(device) or device
    return f"{gpu.name} ({device})" if len(gpus()) > 1 else gpu.name


def about(seconds: float) -> str:
    """A time as rough as it is known: ``a minute``, ``12 min``, ``3 h``."""
    minutes = seconds / 60
    if minutes < 1.5:
        return "a minute"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h".replace(".0 h", " h")


def _going(info: RunInfo, left: float | None) -> Going:
    percent = min(100, 100 * info.step // info.max_steps) if info.max_steps else 0
    word = f"about {about(left)} left" if left is not None and info.state == "training" else ""
    device = together(info, device_name(device_of(info)))
    return Going(info.id, info.name, info.state, STATE_WORDS[info.state], device, percent, word)


def _waiting(
    info: RunInfo, start: float | None, others: Mapping[str, str], places: Sequence[str], paused: bool
) -> Waiting:
    busy = [job for device, job in others.items() if suits(info, device)]
    if info.wanted_device is not None and not set(devices_of(info.wanted_device)) <= set(places):
        word = f"waits for {host_name(info.wanted_device) or info.wanted_device}, which is not here"
    elif paused:
        word = ""  # the panel's head tells it of all
    elif start is None:
        word = f"the GPU is in use: {busy[0]}" if busy else "waits for what is before it"
    else:
        word = f"starts in about {about(start)}" if start > 0 else "starts now"
    return Waiting(info.id, info.name, info.wanted_device or "", word)


def _share_a_device(info: RunInfo, devices: Sequence[str]) -> bool:
    return any(suits(info, device) for device in devices)
