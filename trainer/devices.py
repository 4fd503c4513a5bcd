"""The device a job runs on, its number formats, and the generators behind every random draw.

The one place that knows PyTorch's backends by their names; all else asks ``features_of`` a device.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import gc
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Literal

import psutil
import torch
from torch import Tensor, nn

from trainer.accelerators import FEATURES, DeviceChoice, Features, Kind, wanted_device
from trainer.errors import UserError
from trainer.runs.accelerator_here import turn_name
from trainer.runs.events import EventSink
from trainer.runs.store import Workspace
from trainer.runs.turns import WAITING_HINT, AllTurns, Turn, busy_words, cpu_turn, gpu_turn, holding, waiting_hint

MixedPrecision = Literal["auto", "no", "fp16", "bf16"]
SMALL_MODEL_PARAMETERS = 50_000_000
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_NO_MEMORY = ("DefaultCPUAllocator", "could not create a primitive", "MPS backend out of memory", "NPU out of memory")
"""What torch and oneDNN say on a CPU, the latter where there is no room for the code that it makes; and backends that
raise no ``torch.OutOfMemoryError``."""
_TOOLS_NEED_BYTES = 2 << 30  # of the GPU's memory: enough for a merge's blocks and for the largest matrix of SDXL


def pick_device() -> torch.device:
    """The first accelerator that PyTorch finds and ``LORA_ATELIER_DEVICE`` allows, or the CPU.

    Raises UserError where that names no device.
    """
    wanted = wanted_device()
    found = None if wanted == "cpu" else accelerator()
    return found if found is not None and wanted in ("auto", found.type) else torch.device("cpu")


def accelerator() -> torch.device | None:
    """The first device beside the CPU that PyTorch computes on; None without one, or one of an unknown kind."""
    _load_ascends_backend()
    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device(found.type, 0) if found is not None and found.type in FEATURES else None


@functools.cache
def _load_ascends_backend() -> None:
    """Have PyTorch know ``npu``, where Ascend's package is installed; others' backends are its own."""
    if importlib.util.find_spec("torch_npu"):
        with suppress(ImportError, OSError):  # the package is there, the driver is not
            importlib.import_module("torch_npu")


def kind_of(device: torch.device) -> Kind:
    """What a device is. AMD's GPUs go by CUDA's name in PyTorch; ``meta``, without numbers, stands for some GPU."""
    if device.type in ("cuda", "meta"):
        return "rocm" if torch.version.hip else "cuda"
    kinds: dict[str, Kind] = {kind: kind for kind in FEATURES}
    return kinds[device.type]


def features_of(device: torch.device) -> Features:
    """What a device can do."""
    return FEATURES[kind_of(device)]


def backend(device: torch.device) -> Any:
    """PyTorch's module of a device's backend. What is called by the same names in all of them: streams and events where
    there are ``streams``, counts of memory where there are ``memory_counts``."""
    return torch.get_device_module(device)


def choose_device(wanted: DeviceChoice, field: str = "device") -> torch.device:
    """The device that a user asked for, for a tool that computes in float64.

    ``auto`` is an accelerator that has such numbers, else the CPU. Raises UserError(field).
    """
    device = torch.device("cpu") if wanted == "cpu" else pick_device()
    if wanted == "auto":
        return device if features_of(device).float64 else torch.device("cpu")
    if device.type != wanted:
        name = "NVIDIA or AMD GPU" if wanted == "cuda" else FEATURES[wanted].name
        raise UserError("device.none", f"{field}: there is no {name} here.", "Use auto or cpu.", field)
    if not features_of(device).float64:
        lacks = f"which no {features_of(device).name} is known to have"
        message = f"{field}: {wanted} is given, and this is computed in float64, {lacks}."
        raise UserError("device.float64", message, "Use auto or cpu.", field)
    return device


def compute_dtype(mixed_precision: MixedPrecision, device: torch.device) -> torch.dtype:
    """The format of the frozen weights and of the step's matrix products.

    ``auto`` is bf16 where an accelerator computes in it, else fp16 where losses can be scaled; fp32 on the CPU.
    """
    if mixed_precision == "auto":
        if device.type == "cpu":
            return torch.float32
        without = torch.float16 if features_of(device).loss_scaling else torch.float32
        return torch.bfloat16 if _has_bf16(device) else without
    return {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[mixed_precision]


def _has_bf16(device: torch.device) -> bool:
    """Whether an accelerator multiplies matrices in bfloat16 by itself."""
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    if device.type == "npu":
        return bool(backend(device).is_bf16_supported())
    return bool(backend(device).is_bf16_supported(including_emulation=False))


def in_float64(values: Tensor) -> Tensor:
    """Values in float64: where they are, or on the CPU where their device has no such numbers."""
    return values.double() if features_of(values.device).float64 else values.cpu().double()


def widest_dtype(device: torch.device) -> torch.dtype:
    """The most exact format for sums on a device."""
    return torch.float64 if features_of(device).float64 else torch.float32


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device; those in float64 are float32 there if it has no such numbers."""
    if values.dtype == torch.float64 and not features_of(device).float64:
        values = values.float()
    return values.to(device)


def wait_for(device: torch.device) -> None:
    """Wait until a device has computed all it was given."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif features_of(device).beside_host:
        backend(device).synchronize(device)


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


def is_small(module: nn.Module) -> bool:
    """Whether a step of a model waits for Python rather than for arithmetic on a CPU."""
    return sum(parameter.numel() for parameter in module.parameters()) < SMALL_MODEL_PARAMETERS


def use_threads_for(parameters: int) -> None:
    """Compute a small model on one CPU thread, whatever the machine has; larger ones keep torch's choice.

    A second thread gains a model like the demo's nothing (181 ms a training step on two idle cores, 191 ms on one
    thread), and beside other work it spends its time waiting: steps then took seconds. The rule depends on the model
    alone, so that a resumed run rounds as before.
    """
    if parameters < SMALL_MODEL_PARAMETERS:
        torch.set_num_threads(1)


def device_name(device: torch.device) -> str:
    """``cpu`` or the accelerator's own name."""
    if device.type == "cpu":
        return "cpu"
    name_of = getattr(backend(device), "get_device_name", None)
    return str(name_of(device)) if name_of else features_of(device).name


def gpu_uuid(device: torch.device) -> str | None:
    """What tells an accelerator from all others of the machine, None for the CPU: what the driver has without ``GPU-``
    in front, or ``turn_name`` where the page knows no driver to ask."""
    if device.type == "cpu":
        return None
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else turn_name(str(device))


def turn_on(
    device: torch.device,
    workspace: Workspace,
    what: str,
    *,
    share_gpu: bool | None = False,
    also: Sequence[str] = (),
) -> tuple[Turn | AllTurns | None, str]:
    """One job at a time: on a GPU in the whole machine, on the CPU in the workspace. ``what`` it is, for the others.

    With ``share_gpu`` there is no turn for a GPU: the job computes beside whatever has it; None where that cannot be
    asked for. ``also`` are UUIDs of GPUs on which the job's other processes compute. Returned with it is what can be
    done while it is waited for.
    """
    uuid = gpu_uuid(device)
    if uuid is None:
        return cpu_turn(workspace, what), WAITING_HINT
    if share_gpu:
        return None, waiting_hint(share_gpu)
    all_turns = [gpu_turn(each, what) for each in sorted({uuid, *also})]
    return all_turns[0] if len(all_turns) == 1 else AllTurns(all_turns), waiting_hint(share_gpu)


@contextmanager
def gpu_held(device: torch.device, what: str, events: EventSink, *, share: bool | None = None) -> Iterator[None]:
    """Have a GPU for a job alone meanwhile, and wait for it first. On the CPU jobs go on beside each other.

    Args:
        device: where the job computes.
        what: what it is, for others that then wait.
        events: get a warning that says what is waited for.
        share: whether to compute beside whatever has the GPU instead of waiting; None where that cannot be asked for.
    """
    uuid = gpu_uuid(device)
    if uuid is None or share:
        yield
        return
    with holding(gpu_turn(uuid, what), str(device), events, waiting_hint(share)):
        yield


@contextmanager
def device_held(
    device: torch.device, workspace: Workspace, what: str, events: EventSink, *, share: bool | None = None
) -> Iterator[None]:
    """Have a device for a job alone meanwhile: a GPU as ``gpu_held`` says, the CPU as far as the workspace goes."""
    turn, hint = turn_on(device, workspace, what, share_gpu=share)
    if turn is None:
        yield
        return
    with holding(turn, str(device), events, hint):
        yield


@contextmanager
def tool_device(wanted: DeviceChoice, what: str, events: EventSink) -> Iterator[torch.device]:
    """The device for a tool that a CPU serves nearly as well; a GPU is kept from other jobs meanwhile.

    ``auto`` is a GPU that has room and on which nothing is computed now, else the CPU: a training may take hours.
    ``cuda`` is waited for, see ``gpu_held``. Raises UserError(device).
    """
    device = choose_device(wanted)
    uuid = gpu_uuid(device)
    if wanted != "auto" or uuid is None:
        with gpu_held(device, what, events):
            yield device
        return
    turn = gpu_turn(uuid, what)
    try:
        yield device if _got_with_room(turn, device, events) else torch.device("cpu")
    finally:
        turn.give_back()


def _got_with_room(turn: Turn, device: torch.device, events: EventSink) -> bool:
    """Whether a GPU could be taken at once, and has room; else it is left to others."""
    if not turn.take_if_idle():
        message = f"{busy_words(str(device), turn.holder)} This is computed on the processor."
        events.emit("warning", code="device.processor", message=message, hint="With the device cuda it would wait.")
        return False
    if free_memory_bytes(device) < _TOOLS_NEED_BYTES:
        turn.give_back()
    return turn.held


def free_memory_bytes(device: torch.device) -> int:
    """Memory that can still be taken on the device."""
    if features_of(device).memory_counts:
        return int(backend(device).mem_get_info(device)[0])
    return psutil.virtual_memory().available


def held_memory_bytes(device: torch.device) -> int:
    """What this process holds: of the GPU's memory, or of the machine's."""
    if features_of(device).memory_counts:
        return int(backend(device).memory_reserved(device))
    return torch.mps.driver_allocated_memory() if device.type == "mps" else psutil.Process().memory_info().rss


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most that tensors took of a GPU's memory; None where that is not counted."""
    return int(backend(device).max_memory_allocated(device)) if features_of(device).memory_counts else None


def forget_peak_memory(device: torch.device) -> None:
    """Count ``peak_memory_bytes`` from now on."""
    if features_of(device).memory_counts:
        backend(device).reset_peak_memory_stats(device)


def give_back_memory(device: torch.device) -> None:
    """Collect garbage, and return to the GPU's driver and to the system what is free inside this process.

    glibc keeps what was freed between pieces still in use: after pictures of many sizes that can be as much as the
    model (``malloc_trim(3)``).
    """
    gc.collect()
    if device.type != "cpu":
        backend(device).empty_cache()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def give_back_cached_memory() -> None:
    """Return to the driver what PyTorch keeps of an accelerator's memory for later."""
    if (found := accelerator()) is not None:
        backend(found).empty_cache()


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
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
