"""What this machine has: devices and versions, asked without importing torch. No Gradio."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil

from trainer import __version__
from trainer.runs.accelerator_here import Accelerator, accelerator_here
from trainer.runs.driver import driver_rows
from ui.run_view import file_size

PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "gradio")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as its driver tells it."""

    name: str
    memory_bytes: int
    driver: str


def facts() -> list[tuple[str, str]]:
    """Name and value of everything worth knowing when something does not work."""
    memory = psutil.virtual_memory()
    rows = [("Trains on", trains_on(gpus(), version_of("torch"), accelerator_here()))]
    rows.append(("Processor", f"{psutil.cpu_count(logical=True)} cores, {file_size(memory.total)} of memory"))
    rows.append(("System", f"{platform.system()} {platform.release()}, Python {platform.python_version()}"))
    rows.append(("LoRA Atelier", __version__))
    return rows + [(package, version_of(package)) for package in PACKAGES]


def trains_on(found: list[Gpu], torch_version: str, other: Accelerator | None = None) -> str:
    """The device in words, and what is missing where a GPU cannot be used.

    Args:
        found: NVIDIA's GPUs.
        torch_version: of the installed PyTorch.
        other: the accelerator of another maker, used where there are none.
    """
    if not found and other is not None:
        return other.name if other.memory is None else f"{other.name} with {file_size(other.memory[0])}"
    if not found:
        return "the processor (no GPU found that this PyTorch computes on)"
    names = ", ".join(f"{gpu.name} with {file_size(gpu.memory_bytes)} (driver {gpu.driver})" for gpu in found)
    if torch_version.endswith("+cpu"):
        return f"the processor: there is {names}, but this PyTorch ({torch_version}) is built without CUDA"
    return names


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs that the driver lists; none where there is no driver or it does not answer."""
    rows = driver_rows("--query-gpu=name,memory.total,driver_version")
    return [Gpu(row[0], int(row[1]) * 2**20, row[2]) for row in rows if len(row) == 3 and row[1].isdigit()]


def version_of(package: str) -> str:
    """The installed version of a package, or that there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
