"""The memory that a run will find: on the GPU by its driver, in the machine, or as much as was said. Never torch."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

import psutil

from trainer.accelerators import FEATURES, Kind
from trainer.errors import UserError
from trainer.runs.accelerator_here import accelerator_here, torch_build
from trainer.runs.driver import driver_rows
from trainer.runs.gpus import Gpu, gpus

MEMORY_VARIABLE = "LORA_ATELIER_MEMORY"
"""Environment variable that stands for ``--memory``."""

_GIB = 2**30
_LEFT_SHARE = 0.05  # for the desktop, and for what no estimate knows
_LEAST_BYTES = 2**28
_TRAINER_WORDS = ("-m trainer", "trainer/__main__")


@dataclass(frozen=True)
class Holder:
    """Another program that holds GPU memory. ``ours``: a run or a job of this program, which will have ended."""

    name: str
    bytes: int
    ours: bool


@dataclass(frozen=True)
class Room:
    """Memory that a run may take.

    Attributes:
        kind: of a GPU, of the machine where there is none, or given by the user in place of either.
        name: of the device.
        total_bytes: what the device has.
        free_bytes: what a run will find free.
        holders: who holds the rest, the largest first, as far as the driver tells.
    """

    kind: Literal["gpu", "cpu", "given"]
    name: str
    total_bytes: int
    free_bytes: int
    holders: tuple[Holder, ...] = ()

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU that trains; a memory that was given is meant to be one's."""
        return self.kind != "cpu"

    @property
    def usable_bytes(self) -> int:
        """What a plan may come to: a twentieth stays free."""
        return int(self.free_bytes * (1 - _LEFT_SHARE))

    def holds(self, needed_bytes: int) -> bool:
        """Whether so much fits."""
        return needed_bytes <= self.usable_bytes


def room_here(given: str | None = None) -> Room | None:
    """The memory of this machine, or as much as was given as ``8GB`` or in the environment; None where an accelerator
    does not tell of its own.

    Raises UserError(field="memory") when that is no amount of memory.
    """
    given = given or os.environ.get(MEMORY_VARIABLE)
    if given:
        return given_room(parse_memory(given))
    gpu = _gpu_here()
    if gpu is None:
        return _machine_room()
    return _gpu_room(gpu) if gpu.kind == "cuda" else _other_room(gpu)


def kind_here(given: str | None = None) -> Kind:
    """What a run would compute on: a GPU of the usual kind where a memory was given and the machine has none."""
    gpu = _gpu_here()
    if gpu is not None:
        return gpu.kind
    return "cuda" if given or os.environ.get(MEMORY_VARIABLE) else "cpu"


def _gpu_here() -> Gpu | None:
    """The first GPU that a run may use; None without one, or where this PyTorch cannot use it."""
    gpu = next(iter(gpus()), None)
    return None if gpu is not None and gpu.kind == "cuda" and torch_build() == "cpu" else gpu


def given_room(count: int) -> Room:
    """A GPU of so many bytes, all of them free."""
    return Room("given", f"a GPU with {count / _GIB:g} GB", count, count)


def parse_memory(text: str) -> int:
    """Bytes of ``8GB``, ``7.5 GiB``, ``8192MB`` or ``8``; a GB is 1024^3 bytes, as on the box of a graphics card.

    Raises UserError(field="memory").
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([gm])i?b?)?\s*", text, re.IGNORECASE)
    count = int(float(found[1]) * (2**20 if (found[2] or "g").lower() == "m" else _GIB)) if found else 0
    if count < _LEAST_BYTES:
        message = f"memory: {text!r} is not an amount of memory; allowed is 0.25GB and more."
        raise UserError("plan.memory", message, "Write it like 8GB or 7.5GB.", "memory")
    return count


def _machine_room() -> Room:
    memory = psutil.virtual_memory()
    return Room("cpu", "this machine", memory.total, memory.available)


def _other_room(gpu: Gpu) -> Room | None:
    """The memory of an accelerator that is not NVIDIA's: Apple's have the machine's; None where nothing tells."""
    if not FEATURES[gpu.kind].own_memory:
        memory = psutil.virtual_memory()
        return Room("gpu", f"{gpu.name}, in this machine's memory", memory.total, memory.available)
    here = accelerator_here()
    return Room("gpu", gpu.name, *here.memory) if here is not None and here.memory is not None else None


def _gpu_room(gpu: Gpu) -> Room | None:
    """The memory of a GPU as its driver tells it; None where that does not answer."""
    rows = driver_rows("--query-gpu=memory.total,memory.free", *([f"--id={gpu.uuid}"] if gpu.uuid else []))
    if not rows or len(rows[0]) != 2 or not all(each.isdigit() for each in rows[0]):
        return None
    total, free = (int(each) * 2**20 for each in rows[0])
    holders = _holders(driver_rows("--query-compute-apps=gpu_uuid,pid,used_memory,process_name"), gpu.uuid)
    ours = sum(holder.bytes for holder in holders if holder.ours)
    return Room("gpu", gpu.name, total, min(total, free + ours), tuple(holders))


def _holders(rows: list[list[str]], uuid: str) -> list[Holder]:
    found = []
    for row in rows:
        if len(row) != 4 or row[0] != uuid or not (row[1].isdigit() and row[2].isdigit()):
            continue
        program, ours = _program(int(row[1]), row[3])
        found.append(Holder(program, int(row[2]) * 2**20, ours))
    return sorted(found, key=lambda holder: -holder.bytes)


def _program(pid: int, name: str) -> tuple[str, bool]:
    """What a process is called, and whether it is this program's own."""
    short = name.replace("\\", "/").rpartition("/")[2] or f"process {pid}"
    try:
        words = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return short, False
    ours = any(word in words for word in _TRAINER_WORDS)
    return ("LoRA Atelier" if ours else short), ours
