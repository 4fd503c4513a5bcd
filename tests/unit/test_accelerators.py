"""The table of devices against PyTorch itself: what it lists for each backend, and what the CPU really does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from trainer.accelerators import DEVICES, FEATURES, Kind
from trainer.devices import backend, features_of
from trainer.graphs import graph_maker
from trainer.late_numbers import steps_ahead
from trainer.offload import HostMemory, host_memory_for

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*sorted(path for folder in ("trainer", "ui") for path in (ROOT / folder).rglob("*.py")), ROOT / "app.py"]
CPU = torch.device("cpu")
TYPES: dict[Kind, str] = {**{kind: kind for kind in FEATURES}, "rocm": "cuda"}
"""What PyTorch calls them."""
WITH_MODULE: list[Kind] = [kind for kind in FEATURES if kind != "npu"]
"""PyTorch has the others' modules even where there is no such device."""

NAMES_A_BACKEND = {"trainer/devices.py", "trainer/graphs.py"}
"""The device file, and what captures CUDA graphs."""
MAY_NAME_A_KIND = {*NAMES_A_BACKEND, "trainer/accelerators.py", "trainer/runs/accelerator_here.py"}


def asks_for_a_kind(node: ast.Compare) -> bool:
    """Whether a device is compared with the name of a kind: ``device.type == "cuda"``."""
    words = {each.value for part in node.comparators for each in ast.walk(part) if isinstance(each, ast.Constant)}
    return ast.unparse(node.left).endswith("device.type") and bool(words & {*TYPES.values(), "hip"})


def test_only_the_device_file_names_backends() -> None:
    """Everything else asks for a feature, so that a device is added in one place."""
    for path in SOURCES:
        name, text = path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
        backends = re.findall(r"torch\.(?:cuda|mps|xpu|npu|backends\.mps|accelerator|version\.hip)\b", text)
        assert not backends or name in NAMES_A_BACKEND, f"{name} names {set(backends)}"
        assert "get_device_module" not in text or name == "trainer/devices.py", name
        if name not in MAY_NAME_A_KIND and "device.type" in text:
            compared = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Compare)]
            assert not any(map(asks_for_a_kind, compared)), f"{name} asks which device it is"


def test_such_questions_are_found() -> None:
    questions = ('device.type == "cuda"', 'self._device.type != "cpu"', 'x.device.type in ("xpu", "mps")')
    for question in questions:
        (node,) = (each for each in ast.walk(ast.parse(question)) if isinstance(each, ast.Compare))
        assert asks_for_a_kind(node)
    (other,) = (each for each in ast.walk(ast.parse('lora.type == "lora"')) if isinstance(each, ast.Compare))
    assert not asks_for_a_kind(other)


def test_choices_are_the_kinds_by_pytorchs_names() -> None:
    assert DEVICES[0] == "auto" and set(DEVICES[1:]) == set(TYPES.values())


@pytest.mark.parametrize("kind", [kind for kind, features in FEATURES.items() if features.fused_adamw])
def test_torch_has_fused_optimizers_where_the_table_says_so(kind: Kind) -> None:
    assert TYPES[kind] in _get_fused_kernels_supported_devices()


@pytest.mark.parametrize("kind", WITH_MODULE)
def test_modules_have_what_the_table_promises(kind: Kind) -> None:
    """What is called through ``backend``; the CPU's module counts no memory, and the table must not say so."""
    features, module = FEATURES[kind], torch.get_device_module(TYPES[kind])
    counts = ("mem_get_info", "memory_reserved", "memory_allocated", "max_memory_allocated", "reset_peak_memory_stats")
    assert features.memory_counts == all(hasattr(module, name) for name in counts)
    if features.streams:
        assert all(hasattr(module, name) for name in ("Stream", "Event", "stream", "current_stream"))
    if features.beside_host:
        assert hasattr(module, "empty_cache") and hasattr(module, "synchronize")


def test_what_the_cpu_has_it_does() -> None:
    features = features_of(CPU)
    assert features.float64 and float(torch.tensor(1.0, dtype=torch.float64) + 2.0**-40) > 1
    assert features.fp8 and float(torch.tensor(3.3).to(torch.float8_e4m3fn).float()) == 3.25
    weight = nn.Parameter(torch.ones(2))
    assert features.loss_scaling
    scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD([weight], lr=1.0)
    scaler.scale((weight * torch.tensor([0.5, 2.0])).sum()).backward()
    scaler.step(optimizer)
    assert weight.tolist() == [0.5, -1.0]
    assert features.fused_adamw
    fused = torch.optim.AdamW([weight], lr=1.0, fused=True)
    fused.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
    fused.step()
    assert weight.tolist() == [0.5, -1.0], "a step with gradients that are not finite is left out"


def test_what_the_cpu_has_not_is_not_used() -> None:
    assert graph_maker(CPU) is None and host_memory_for(CPU) is None and steps_ahead(CPU) == 0


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_copies_beside_computations_go_through_the_devices_own_streams(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    device = torch.device(kind, 0)
    module = torch.get_device_module(kind)
    monkeypatch.setattr(module, "Stream", lambda wanted: f"a stream on {wanted}")
    home = host_memory_for(device)
    assert isinstance(home, HostMemory) and home._stream == f"a stream on {device}"  # type: ignore[comparison-overlap]
    assert backend(device) is module
