"""Which accelerator this machine has where there is no NVIDIA driver, found out without importing torch.

By two things each: the PyTorch that is installed is built for it, and the system has its device. PyTorch uses one kind
at a time, and the queue one of that kind.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trainer.accelerators import DEVICE_VARIABLE, FEATURES, Kind

DEVICES = Path("/dev")
"""Where drivers put their devices; Linux."""
CARDS = Path("/sys/class/drm")
"""Where the kernel tells of graphics cards; Linux."""


@dataclass(frozen=True)
class Accelerator:
    """One that is not NVIDIA's.

    Attributes:
        kind: what it is.
        device: as the queue calls it.
        memory: total and free bytes of its own memory, where the system tells; None otherwise.
    """

    kind: Kind
    device: str
    memory: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """In words; its maker's name is known to PyTorch only."""
        return FEATURES[self.kind].name


def accelerator_here() -> Accelerator | None:
    """The accelerator that a trainer would find; None without one, or where ``LORA_ATELIER_DEVICE`` names another."""
    found = next(_found(), None)
    wanted = os.environ.get(DEVICE_VARIABLE) or "auto"
    return found if found is not None and wanted in ("auto", found.device.partition(":")[0]) else None


def turn_name(device: str) -> str:
    """What the turn on such a device is called, as a file name: ``mps:0`` is ``mps-0``."""
    return device.replace(":", "-")


def torch_build() -> str:
    """What the installed PyTorch is built for: ``cpu``, ``rocm7.1``, ``xpu``; empty where its version does not say."""
    try:
        return version("torch").partition("+")[2]
    except PackageNotFoundError:
        return ""


def _found() -> Iterator[Accelerator]:
    build = torch_build()
    if build.startswith("rocm") and (DEVICES / "kfd").exists():
        yield Accelerator("rocm", "cuda:0", _amd_memory())
    if build.startswith("xpu") and (sys.platform == "win32" or any((DEVICES / "dri").glob("renderD*"))):
        yield Accelerator("xpu", "xpu:0")
    if importlib.util.find_spec("torch_npu") and (DEVICES / "davinci_manager").exists():
        yield Accelerator("npu", "npu:0")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        yield Accelerator("mps", "mps:0")


def _amd_memory() -> tuple[int, int] | None:
    """Total and free bytes by the files of the driver (Linux kernel, "GPU Driver Info": mem_info_vram_*); None unless
    there is exactly one card, as PyTorch may count several otherwise."""
    cards = list(CARDS.glob("card*/device/mem_info_vram_total"))
    try:
        [total_file] = cards
        total = int(total_file.read_text())
        return total, total - int(total_file.with_name("mem_info_vram_used").read_text())
    except (OSError, ValueError):
        return None
