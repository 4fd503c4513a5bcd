"""What computes: the kinds of devices, and what each of them can do. Never torch, so that plan and page can ask.

The table says what PyTorch's backend of a kind offers, and takes what is not certain for missing; which formats one
GPU has and another of its kind has not is asked of the device itself, in ``devices``. ``docs/devices.md`` is the same
table for people, with what was run and what is only expected.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal, get_args

from trainer.errors import UserError

Kind = Literal["cpu", "cuda", "rocm", "mps", "xpu", "npu"]
"""PyTorch's name of a backend, but that AMD's goes by ``cuda``, too, and is told apart here."""
DeviceChoice = Literal["auto", "cpu", "cuda", "mps", "xpu", "npu"]
"""What ``--device`` takes; ``cuda`` is an AMD GPU as well."""
DEVICES: tuple[DeviceChoice, ...] = get_args(DeviceChoice)
DEVICE_VARIABLE = "LORA_ATELIER_DEVICE"
"""Environment variable with the one kind of device that a process may use, such as ``cpu``."""


@dataclass(frozen=True)
class Features:
    """What a kind of device can do.

    Attributes:
        name: in words.
        beside_host: it computes beside the processor: what was started there need not be done when a call returns.
        own_memory: its memory is not the machine's, so that something is gained when weights lie elsewhere.
        memory_counts: PyTorch tells what of its memory is free, held, and was held at most.
        streams: copies go on beside computations, from pinned memory; events tell when something was done.
        graphs: a CUDA graph of a whole step can be captured and replayed.
        fused_adamw: torch's fused AdamW, which by itself leaves out a step whose gradients are not finite.
        float64: it has such numbers.
        loss_scaling: torch's GradScaler, without which float16 does not train.
        fp8: it holds weights in float8_e4m3fn.
        deterministic: it is known to compute the same bits each time when torch is told to.
        eight_bit_optimizers: bitsandbytes has kernels for optimizer states in 8 bits.
        paged_optimizers: bitsandbytes moves such states between its memory and the machine's.
        process_groups: several processes may train on devices of this kind, one on each.
        kernel_times: the profiler tells how long each of its kernels took.
        fused_layers: the kernels of ``trainer.fused`` are known to run on it.
    """

    name: str
    beside_host: bool = True
    own_memory: bool = False
    memory_counts: bool = False
    streams: bool = False
    graphs: bool = False
    fused_adamw: bool = False
    float64: bool = False
    loss_scaling: bool = False
    fp8: bool = False
    deterministic: bool = False
    eight_bit_optimizers: bool = False
    paged_optimizers: bool = False
    process_groups: bool = False
    kernel_times: bool = False
    fused_layers: bool = False

    @property
    def offloads(self) -> bool:
        """Whether weights may lie in the machine's memory and be fetched beside computations."""
        return self.own_memory and self.streams


_CUDA = Features(
    name="NVIDIA GPU",
    own_memory=True,
    memory_counts=True,
    streams=True,
    graphs=True,
    fused_adamw=True,
    float64=True,
    loss_scaling=True,
    fp8=True,
    deterministic=True,
    eight_bit_optimizers=True,
    paged_optimizers=True,
    process_groups=True,
    kernel_times=True,
    fused_layers=True,
)

FEATURES: dict[Kind, Features] = {
    "cpu": Features(
        name="processor",
        beside_host=False,
        fused_adamw=True,
        float64=True,
        loss_scaling=True,
        fp8=True,
        deterministic=True,
        eight_bit_optimizers=True,
        process_groups=True,
    ),
    "cuda": _CUDA,
    # HIP stands in for CUDA call by call (PyTorch's documentation, "HIP (ROCm) semantics")
    "rocm": replace(_CUDA, name="AMD GPU", fused_layers=False),
    # Copies that are not waited for may read what is gone by then (pytorch#189690), so there are none here
    "mps": Features(name="Apple GPU", loss_scaling=True),
    # Arc A has no float64, which GradScaler computes with
    "xpu": Features(
        name="Intel GPU",
        own_memory=True,
        memory_counts=True,
        streams=True,
        fused_adamw=True,
        fp8=True,
        eight_bit_optimizers=True,
        paged_optimizers=True,
    ),
    "npu": Features(name="Ascend NPU", own_memory=True, memory_counts=True, streams=True),
}


def wanted_device() -> DeviceChoice:
    """What ``LORA_ATELIER_DEVICE`` allows this process; ``auto`` where it is not set. Raises UserError."""
    given = os.environ.get(DEVICE_VARIABLE) or DEVICES[0]
    for device in DEVICES:
        if given == device:
            return device
    message = f"{DEVICE_VARIABLE}: {given!r} is given; allowed are {', '.join(DEVICES)}."
    raise UserError("device.variable", message, "Correct it, or leave it out.", DEVICE_VARIABLE)
