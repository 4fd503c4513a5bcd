"""Which device, its number formats and memory, threads, and generators."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from trainer.accelerators import DEVICE_VARIABLE, FEATURES
from trainer.config import Config, ModelSettings
from trainer.devices import (
    _load_ascends_backend,
    accelerator,
    choose_device,
    compute_dtype,
    device_name,
    features_of,
    free_memory_bytes,
    gpu_uuid,
    held_memory_bytes,
    in_float64,
    is_out_of_memory,
    kind_of,
    lacks_determinism,
    peak_memory_bytes,
    pick_device,
    seeded_generator,
    sent,
    use_deterministic,
    use_threads_for,
    widest_dtype,
)
from trainer.errors import UserError
from trainer.families import load_family
from trainer.runs.events import Events
from trainer.runs.store import Workspace
from trainer.session import Session, _explain, _tell_left_idle

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_small_model_gets_one_thread_and_a_large_one_keeps_what_there_is() -> None:
    torch.set_num_threads(2)
    use_threads_for(860_000_000)
    assert torch.get_num_threads() == 2
    load_family(ModelSettings(base="demo"), device=CPU, dtype=torch.float32)
    assert torch.get_num_threads() == 1


def test_formats_on_the_cpu() -> None:
    chosen = [compute_dtype(name, CPU) for name in ("auto", "no", "fp16", "bf16")]  # type: ignore[arg-type]
    assert chosen == [torch.float32, torch.float32, torch.float16, torch.bfloat16]


def test_a_draw_depends_on_every_part_of_its_purpose_and_on_nothing_else() -> None:
    purposes = [(1, 2, "noise"), (1, 3, "noise"), (1, 2, "timesteps"), (2, 2, "noise"), (1, 12, "noise")]
    draws = [torch.randn(4, generator=seeded_generator(*purpose)) for purpose in purposes]
    torch.manual_seed(0)
    again = torch.randn(4, generator=seeded_generator(*purposes[0]))
    assert torch.equal(draws[0], again)
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    use_deterministic(False)


def test_deterministic_computing_is_set_and_given_up(as_before: None) -> None:
    torch.backends.cudnn.benchmark = True
    use_deterministic(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled(), "attention would only warn, and go on as it likes"
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    use_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.deterministic


def test_what_cannot_be_computed_so_is_explained(as_before: None) -> None:
    use_deterministic(True)
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    assert lacks_determinism(caught.value) and not lacks_determinism(RuntimeError("shapes differ"))
    problem = _explain(caught.value, in_steps=True)
    assert problem.field == "train.deterministic" and "put_" in problem.message and "Turn off" in problem.hint


class Heard:
    def __init__(self) -> None:
        self.codes: list[str] = []

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        self.codes.append(fields["code"])


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Have PyTorch find a device, or none."""

    def found(kind: str | None) -> None:
        there = None if kind is None else torch.device(kind)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: there)

    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    return found


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_accelerator_is_taken_unless_another_device_is_asked_for(
    device: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    device(kind)
    assert pick_device() == accelerator() == torch.device(kind, 0)
    for wanted, taken in (("auto", kind), (kind, kind), ("cpu", "cpu"), ("npu", "cpu")):
        monkeypatch.setenv(DEVICE_VARIABLE, wanted)
        assert pick_device().type == taken


def test_a_device_that_there_is_not_is_no_silent_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, "gpu")
    with pytest.raises(UserError, match="'gpu' is given; allowed are auto, cpu, cuda, mps, xpu, npu"):
        pick_device()
    monkeypatch.setenv(DEVICE_VARIABLE, "")
    pick_device()


@pytest.mark.parametrize(("kind", "told"), [("mps", ["processes.device"]), ("cuda", []), (None, [])])
def test_an_accelerator_that_several_processes_leave_idle_is_told(
    device: Callable[[str | None], None], tmp_path: Path, kind: str | None, told: list[str]
) -> None:
    device(kind)
    run = Workspace(tmp_path).create_run(Config())
    heard = Heard()
    _tell_left_idle(Session(run, CPU, None, Events(heard)))
    assert heard.codes == told


@pytest.mark.parametrize("kind", [None, "hpu"])
def test_without_one_that_is_known_the_cpu_computes(device: Callable[[str | None], None], kind: str | None) -> None:
    device(kind)
    assert accelerator() is None and pick_device() == CPU
    for wanted in ("cuda", "mps", "xpu", "npu"):
        with pytest.raises(UserError, match=r"there is no .* here") as caught:
            choose_device(wanted, "where")  # type: ignore[arg-type]
        assert caught.value.problems[0].field == "where"
    assert choose_device("auto") == choose_device("cpu") == CPU


def test_tools_compute_where_there_is_float64(device: Callable[[str | None], None]) -> None:
    device("mps")
    assert choose_device("auto") == CPU
    with pytest.raises(UserError, match=r"mps is given.*no Apple GPU.*") as caught:
        choose_device("mps")
    assert "auto or cpu" in caught.value.problems[0].hint
    device("cuda")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 0)


@pytest.mark.parametrize(("body", "taken"), [("raise ImportError('no driver')", "cpu"), ("LOADED = True", "mps")])
def test_ascends_package_is_loaded_where_it_is_installed(
    device: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, taken: str
) -> None:
    """A package of that name, which makes a device known or breaks; its own kind is unknown to PyTorch without it."""
    (tmp_path / "torch_npu.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        torch.accelerator,
        "current_accelerator",
        lambda check_available: torch.device("mps") if "torch_npu" in sys.modules else None,
    )
    _load_ascends_backend.cache_clear()
    try:
        assert pick_device().type == taken
    finally:
        sys.modules.pop("torch_npu", None)
        _load_ascends_backend.cache_clear()


def test_amds_gpus_are_told_from_nvidias(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    assert kind_of(gpu) == "cuda"
    monkeypatch.setattr(torch.version, "hip", "7.1")
    assert kind_of(gpu) == "rocm" and features_of(gpu).name == "AMD GPU"
    assert kind_of(CPU) == "cpu"


@pytest.mark.parametrize(
    ("kind", "asked", "has", "format_"),
    [
        ("cuda", "torch.cuda.is_bf16_supported", True, torch.bfloat16),
        ("cuda", "torch.cuda.is_bf16_supported", False, torch.float16),
        ("xpu", "torch.xpu.is_bf16_supported", True, torch.bfloat16),
        ("xpu", "torch.xpu.is_bf16_supported", False, torch.float32),
        ("mps", "torch.backends.mps.is_macos_or_newer", True, torch.bfloat16),
        ("mps", "torch.backends.mps.is_macos_or_newer", False, torch.float16),
    ],
)
def test_formats_where_the_device_is_asked(
    monkeypatch: pytest.MonkeyPatch, kind: str, asked: str, has: bool, format_: torch.dtype
) -> None:
    """fp16 only where losses can be scaled up."""
    monkeypatch.setattr(asked, lambda *_, **__: has)
    assert compute_dtype("auto", torch.device(kind, 0)) == format_
    assert compute_dtype("no", torch.device(kind, 0)) == torch.float32


def test_float64_stays_where_it_is_or_is_computed_beside_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.tensor([1 / 3], dtype=torch.float64)
    assert sent(values, CPU).dtype == widest_dtype(CPU) == in_float64(values.float()).dtype == torch.float64
    monkeypatch.setitem(FEATURES, "cpu", replace(FEATURES["cpu"], float64=False))
    assert sent(values, CPU).dtype == widest_dtype(CPU) == torch.float32
    assert sent(torch.arange(3), CPU).dtype == torch.int64
    assert torch.equal(in_float64(values.float()), values.float().double())


def test_turns_are_had_on_every_accelerator() -> None:
    assert gpu_uuid(torch.device("mps", 0)) == "mps-0" and gpu_uuid(torch.device("xpu", 1)) == "xpu-1"
    assert gpu_uuid(CPU) is None and device_name(CPU) == "cpu"
    assert device_name(torch.device("mps", 0)) == "Apple GPU"


def test_memory_is_counted_by_the_backend_or_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.xpu, "mem_get_info", lambda device: (3, 8))
    monkeypatch.setattr(torch.xpu, "memory_reserved", lambda device: 2)
    monkeypatch.setattr(torch.xpu, "max_memory_allocated", lambda device: 5)
    xpu = torch.device("xpu", 0)
    assert (free_memory_bytes(xpu), held_memory_bytes(xpu), peak_memory_bytes(xpu)) == (3, 2, 5)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 7)
    mps = torch.device("mps", 0)
    assert (held_memory_bytes(mps), peak_memory_bytes(mps)) == (7, None)
    assert peak_memory_bytes(CPU) is None and held_memory_bytes(CPU) > 2**20
    assert 0 < free_memory_bytes(mps) <= psutil.virtual_memory().total


@pytest.mark.parametrize("words", ["MPS backend out of memory (MPS allocated: 9.0 GB)", "NPU out of memory. Tried to"])
def test_memory_that_ran_out_is_known_by_each_backends_words(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words)) and not is_out_of_memory(RuntimeError("MPS backend is tired"))
