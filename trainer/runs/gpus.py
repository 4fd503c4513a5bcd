"""The GPUs that runs can be queued for, found without importing torch: NVIDIA's by their driver, else another one."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.accelerators import DEVICE_VARIABLE, FEATURES, Kind
from trainer.errors import UserError
from trainer.runs.accelerator_here import accelerator_here, turn_name
from trainer.runs.driver import driver_rows
from trainer.runs.turns import Holder, gpu_turn

CPU = "cpu"
VISIBLE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""What PyTorch goes by; AMD's GPUs by the second where there is one (ROCm's documentation, "GPU isolation")."""


@dataclass(frozen=True)
class Gpu:
    """One GPU, or another accelerator, that this process may use.

    Attributes:
        device: ``cuda:0``, counted as this process sees them.
        uuid: the same in every process and after a restart; empty where only the driver is known to be there.
        name: what its maker calls it.
        kind: what it is.
    """

    device: str
    uuid: str
    name: str
    kind: Kind = "cuda"

    @property
    def joins(self) -> bool:
        """Whether several processes may train on such devices together, each on its own."""
        return FEATURES[self.kind].process_groups


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """NVIDIA's GPUs, else the one accelerator of another kind, if there is one. Asked once per process."""
    if (os.environ.get(DEVICE_VARIABLE) or "auto") in ("auto", "cuda") and (found := _nvidia()):
        return found
    other = accelerator_here()
    if other is None or (other.kind == "rocm" and _hides_all(_visible("rocm"))):
        return ()
    return (Gpu(other.device, "" if other.kind == "rocm" else turn_name(other.device), other.name, other.kind),)


def _visible(kind: Kind) -> list[str] | None:
    """The GPUs that the environment leaves; None where it hides none."""
    variables = reversed(VISIBLE_VARIABLES) if kind == "rocm" else VISIBLE_VARIABLES[:1]
    visible = next((os.environ[name] for name in variables if name in os.environ), None)
    return None if visible is None else [name.strip() for name in visible.split(",") if name.strip()]


def _hides_all(visible: list[str] | None) -> bool:
    return visible is not None and (not visible or visible[0] == "-1")


def _nvidia() -> tuple[Gpu, ...]:
    """The GPUs the driver lists, those hidden by ``CUDA_VISIBLE_DEVICES`` left out.

    Numbers in ``CUDA_VISIBLE_DEVICES`` are taken as ``nvidia-smi`` counts.
    """
    wanted = _visible("cuda")
    if _hides_all(wanted):
        return ()
    listed = _listed()
    if listed:
        chosen = listed if wanted is None else [gpu for name in wanted for gpu in listed if _is_meant(name, *gpu)]
        return tuple(Gpu(f"cuda:{index}", uuid, name) for index, (_, uuid, name) in enumerate(chosen))
    if shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists():
        return (Gpu("cuda:0", "", "NVIDIA GPU"),)
    return ()


def worker_devices() -> list[str]:
    """The devices that get a worker of their own: each GPU, and the CPU."""
    return [*(gpu.device for gpu in gpus()), CPU]


def default_device() -> str:
    """Where a run goes when nothing else is asked for and nothing else is going."""
    return worker_devices()[0]


def gpu_of(device: str) -> Gpu | None:
    """The GPU of this name; None for the CPU and for one that is not here."""
    return next((gpu for gpu in gpus() if gpu.device == device), None)


def devices_of(device: str) -> list[str]:
    """The devices of a run's processes: ``cuda:0,cuda:1`` are two, one for each. The first one's worker starts it."""
    return [name.strip() for name in device.split(",")]


def device_holder(device: str) -> Holder | None:
    """Which job has a GPU; None where none has it or it is not told, and for the CPU, which jobs share."""
    gpu = gpu_of(device)
    return gpu_turn(gpu.uuid).holder if gpu is not None and gpu.uuid else None


def check_device(device: str | None) -> None:
    """Raise UserError unless a run can be queued for it; None is any free GPU, or the CPU where there is none."""
    names = [] if device is None else devices_of(device)
    twice = len(set(names)) < len(names) and set(names) != {CPU}
    if twice or not set(names) <= set(worker_devices()):
        allowed = ", ".join(["any", *worker_devices()])
        raise UserError(
            "queue.device",
            f"There is no device {device!r} here; there are {allowed}.",
            "Choose one, or several with commas.",
        )


def chosen_gpus(names: Sequence[str], count: int) -> list[str]:
    """What CUDA calls so many GPUs: those of the names, such as ``0`` or ``cuda:0``, else the first ones.

    Raises UserError for one that is not here, is named twice, and where there are too few, or of a kind of which
    several do not train together.
    """
    found = gpus()
    if found and not found[0].joins:
        message = f"--processes and --devices: the {found[0].name} trains alone."
        hint = "Leave both out to train on it, or give --devices cpu."
        raise UserError("processes.kind", message, hint, "processes")
    if found and found[0].kind == "rocm":
        return _chosen_uncounted(names, count)
    here = {gpu.device: gpu.uuid or gpu.device.removeprefix("cuda:") for gpu in found if gpu.joins}
    wanted = [name if name.startswith("cuda:") else f"cuda:{name}" for name in names] or list(here)[:count]
    if len(wanted) < count:
        message = f"--processes {count}: each needs a GPU of its own, and there are {len(wanted)}."
        raise UserError("processes.gpus", message, "Give fewer, or --devices cpu.", "processes")
    missing = [name for name in wanted if name not in here or wanted.count(name) > 1]
    if missing or len(wanted) > count:
        message = f"--devices {','.join(names)}: there are {', '.join(here) or 'no GPUs'} here, one for each process."
        raise UserError("processes.devices", message, "Name other ones, or cpu.", "devices")
    return [here[name] for name in wanted]


def _chosen_uncounted(names: Sequence[str], count: int) -> list[str]:
    """AMD's GPUs that are named by their numbers; whether they are there is seen when they are used.

    They are not counted: what the driver lists may be a processor's own graphics, too, on which nothing trains.
    """
    numbers = [name.removeprefix("cuda:") for name in names] or ["0"]
    visible = _visible("rocm")
    right = all(number.isdigit() and (visible is None or int(number) < len(visible)) for number in numbers)
    if not right or len(numbers) != count or len(set(numbers)) < count:
        message = f"--processes {count} --devices {','.join(names) or 'not given'}: AMD's GPUs are not counted here."
        raise UserError("processes.devices", message, "Name each by its number, as in --devices 0,1.", "devices")
    return numbers if visible is None else [visible[int(number)] for number in numbers]


def _listed() -> list[tuple[str, str, str]]:
    """Index, UUID and name of every GPU that ``nvidia-smi`` knows; empty where it does not answer."""
    rows = driver_rows("--query-gpu=index,uuid,name", most_columns=3, timeout_seconds=20)
    return [(row[0], row[1], row[2]) for row in rows if len(row) == 3 and row[0].isdigit()]


def _is_meant(wanted: str, index: str, uuid: str, name: str) -> bool:
    """``CUDA_VISIBLE_DEVICES`` names a GPU by its number, or by the beginning of its UUID."""
    return wanted == index if wanted.isdigit() else uuid.startswith(wanted)
