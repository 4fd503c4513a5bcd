"""Accelerators that are not NVIDIA's, found by the installed PyTorch and the system's devices."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trainer.accelerators import DEVICE_VARIABLE
from trainer.errors import UserError
from trainer.plan_room import MEMORY_VARIABLE, kind_here, room_here
from trainer.runs import accelerator_here as module
from trainer.runs import worker
from trainer.runs.accelerator_here import Accelerator, accelerator_here
from trainer.runs.gpus import Gpu, chosen_gpus, default_device, gpus, worker_devices
from ui import machine

Machine = Callable[..., None]


@pytest.fixture
def a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine with some devices and some PyTorch, and without NVIDIA's driver."""

    def made(build: str, *devices: str, system: str = "linux", processor: str = "x86_64") -> None:
        for name in devices:
            (tmp_path / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "dev" / name).touch()
        monkeypatch.setattr(module, "version", lambda package: f"2.13.0{build}")
        monkeypatch.setattr(module, "DEVICES", tmp_path / "dev")
        monkeypatch.setattr(module, "CARDS", tmp_path / "drm")
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(platform, "machine", lambda: processor)

    for name in (DEVICE_VARIABLE, MEMORY_VARIABLE, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    gpus.cache_clear()
    yield made
    monkeypatch.undo()
    gpus.cache_clear()


@pytest.mark.parametrize(
    ("build", "devices", "system", "processor", "found"),
    [
        ("+rocm7.1", ["kfd"], "linux", "x86_64", ("rocm", "cuda:0", "AMD GPU")),
        ("+rocm7.1", [], "linux", "x86_64", None),
        ("+cpu", ["kfd", "dri/renderD128"], "linux", "x86_64", None),
        ("+xpu", ["dri/renderD128"], "linux", "x86_64", ("xpu", "xpu:0", "Intel GPU")),
        ("+xpu", ["dri/card0"], "linux", "x86_64", None),
        ("+xpu", [], "win32", "AMD64", ("xpu", "xpu:0", "Intel GPU")),
        ("", [], "darwin", "arm64", ("mps", "mps:0", "Apple GPU")),
        ("", [], "darwin", "x86_64", None),
        ("+cpu", ["davinci_manager"], "linux", "aarch64", None),
    ],
)
def test_each_by_its_pytorch_and_its_device(
    a_machine: Machine, build: str, devices: list[str], system: str, processor: str, found: tuple[str, ...] | None
) -> None:
    a_machine(build, *devices, system=system, processor=processor)
    here = accelerator_here()
    assert (None if here is None else (here.kind, here.device, here.name)) == found


def test_ascends_needs_its_package(a_machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch_npu.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    a_machine("+cpu")
    assert accelerator_here() is None
    a_machine("+cpu", "davinci_manager")
    assert accelerator_here() == Accelerator("npu", "npu:0")
    assert kind_here() == "npu" and room_here() is None


def test_the_queue_has_one_worker_for_it_and_the_cpu_is_left_to_itself(a_machine: Machine) -> None:
    a_machine("+xpu", "dri/renderD128")
    assert gpus() == (Gpu("xpu:0", "xpu-0", "Intel GPU", "xpu"),)
    assert worker_devices() == ["xpu:0", "cpu"] and default_device() == "xpu:0"
    assert worker._environment("xpu:0")[DEVICE_VARIABLE] == "xpu"
    assert worker._environment("cpu")[DEVICE_VARIABLE] == worker._environment("ssh:host")[DEVICE_VARIABLE] == "cpu"
    assert DEVICE_VARIABLE not in worker._environment("cuda:0")
    for names, count in ((["xpu:0"], 1), ([], 2)):
        with pytest.raises(UserError, match=r"the Intel GPU trains alone.*--devices cpu"):
            chosen_gpus(names, count)


def test_amds_go_by_cudas_name_and_are_hidden_like_nvidias(a_machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    a_machine("+rocm7.1", "kfd")
    assert gpus() == (Gpu("cuda:0", "", "AMD GPU", "rocm"),) and chosen_gpus([], 1) == ["0"]
    gpus.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == ()


def test_several_of_amds_are_named_by_their_numbers_among_those_that_are_left(
    a_machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not counted: the graphics of a processor would be one of them."""
    a_machine("+rocm7.1", "kfd")
    assert chosen_gpus(["1", "cuda:0"], 2) == ["1", "0"]
    for names, count in (([], 2), (["0"], 2), (["0", "0"], 2), (["0", "GPU-1234"], 2)):
        with pytest.raises(UserError, match=r"AMD's GPUs are not counted here.*--devices 0,1"):
            chosen_gpus(names, count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "3,1")
    assert chosen_gpus(["1", "0"], 2) == ["1", "3"]
    with pytest.raises(UserError):
        chosen_gpus(["0", "2"], 2)


@pytest.mark.parametrize(("wanted", "devices"), [("auto", ["mps:0", "cpu"]), ("cpu", ["cpu"]), ("cuda", ["cpu"])])
def test_a_device_that_is_asked_for_is_the_only_one(
    a_machine: Machine, monkeypatch: pytest.MonkeyPatch, wanted: str, devices: list[str]
) -> None:
    a_machine("", system="darwin", processor="arm64")
    monkeypatch.setenv(DEVICE_VARIABLE, wanted)
    assert worker_devices() == devices


def test_apples_memory_is_the_machines(a_machine: Machine) -> None:
    a_machine("", system="darwin", processor="arm64")
    room = room_here()
    assert room is not None and room.on_gpu and room.total_bytes == psutil.virtual_memory().total
    assert kind_here() == "mps" and room.name == "Apple GPU, in this machine's memory"
    assert machine.trains_on([], "2.13.0", accelerator_here()) == "Apple GPU"


def test_amds_memory_is_told_by_the_kernel_where_there_is_one_card(a_machine: Machine, tmp_path: Path) -> None:
    a_machine("+rocm7.1", "kfd")
    assert room_here() is None, "a GPU whose memory nobody tells"
    for number, total in enumerate((16 << 30, 8 << 30)):
        folder = tmp_path / "drm" / f"card{number}" / "device"
        folder.mkdir(parents=True)
        (folder / "mem_info_vram_total").write_text(f"{total}\n")
        (folder / "mem_info_vram_used").write_text(f"{1 << 30}\n")
        room = room_here()
        if number == 0:
            assert room is not None and (room.total_bytes, room.free_bytes) == (16 << 30, 15 << 30)
            assert machine.trains_on([], "2.13.0+rocm7.1", accelerator_here()) == "AMD GPU with 17.2 GB"
        else:
            assert room is None, "which of two is meant is not known"


def test_a_given_memory_is_planned_for_the_device_that_is_here(a_machine: Machine) -> None:
    a_machine("+cpu")
    assert kind_here() == "cpu" and kind_here("8GB") == "cuda"
    a_machine("+xpu", "dri/renderD128")
    gpus.cache_clear()
    assert kind_here("8GB") == "xpu"
