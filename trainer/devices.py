"""The device a job runs on, its number formats, and the generators behind every random draw."""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from typing import Literal

import psutil
import torch

from trainer.errors import UserError
from trainer.runs.store import Workspace
from trainer.runs.turns import Turn, cpu_turn, gpu_turn

MixedPrecision = Literal["auto", "no", "fp16", "bf16"]
SMALL_MODEL_PARAMETERS = 50_000_000
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def pick_device() -> torch.device:
    """The first NVIDIA GPU, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def choose_device(wanted: Literal["auto", "cpu", "cuda"], field: str = "device") -> torch.device:
    """The device that a user asked for; ``auto`` is a GPU where there is one. Raises UserError(field)."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device.none", f"{field}: there is no NVIDIA GPU here.", "Use auto or cpu.", field)
    return torch.device("cpu") if wanted == "cpu" else pick_device()


def compute_dtype(mixed_precision: MixedPrecision, device: torch.device) -> torch.dtype:
    """The format of the frozen weights and of the step's matrix products.

    ``auto`` is bf16 where the GPU computes in it, fp16 on older ones, fp32 on the CPU.
    """
    if mixed_precision == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[mixed_precision]


def use_deterministic(wanted: bool) -> None:
    """Let torch compute the same bits each time, or as fast as it can; before the first matrix product of the process.

    Wanted, torch takes deterministic kernels and raises RuntimeError where an operation has none; those that only warn
    otherwise, the backward passes of attention, have deterministic forms that they take then. cuDNN neither tries
    kernels out nor takes those that add in any order, and cuBLAS works in buffers of its own (CUDA's documentation,
    "cuBLAS results reproducibility"). TF32 stays as it is: it rounds more, but always alike.
    """
    if wanted:
        os.environ[CUBLAS_WORKSPACE] = ":4096:8"
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cudnn.benchmark = False


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Where float32 LoRA weights meet the frozen weights in ``dtype``."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def use_threads_for(parameters: int) -> None:
    """Compute a small model on one CPU thread, whatever the machine has; larger ones keep torch's choice.

    A second thread gains a model like the demo's nothing (181 ms a training step on two idle cores, 191 ms on one
    thread), and beside other work it spends its time waiting: steps then took seconds. The rule depends on the model
    alone, so that a resumed run rounds as before.
    """
    if parameters < SMALL_MODEL_PARAMETERS:
        torch.set_num_threads(1)


def device_name(device: torch.device) -> str:
    """``cpu`` or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def gpu_uuid(device: torch.device) -> str | None:
    """What tells a GPU from all others, as the driver has it without ``GPU-`` in front; None for the CPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None


def turn_on(device: torch.device, workspace: Workspace) -> Turn:
    """One job at a time: on a GPU in the whole machine, on the CPU in the workspace."""
    uuid = gpu_uuid(device)
    return cpu_turn(workspace) if uuid is None else gpu_turn(uuid)


def free_memory_bytes(device: torch.device) -> int:
    """Memory that can still be taken on the device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def seeded_generator(seed: int, *purpose: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on nothing but its arguments, such as ``(seed, step, micro_batch, "noise")``.

    A resumed run draws at step 500 what an undisturbed one draws there, without any state to carry over. On the CPU,
    so that a run on a GPU sees the same noise, but for draws that are too many.
    """
    digest = hashlib.sha256("/".join(str(part) for part in (seed, *purpose)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def lacks_determinism(error: BaseException) -> bool:
    """Whether a computation ended because it has no deterministic form on this device."""
    return isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation failed because GPU or main memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
