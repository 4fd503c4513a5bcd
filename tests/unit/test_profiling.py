"""The profile of a step: phases that fill it, work counted by hand, memory by kind, and layers with their backward."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import profile

from trainer.families import FAMILIES
from trainer.families.base import Conditioning, Family
from trainer.profiling.memory import memory_by_kind
from trainer.profiling.profile import PROFILED_STEPS, profile_step
from trainer.profiling.report import profile_lines
from trainer.profiling.spans import DATA, STEP, layers_of, parts_marked, span
from trainer.profiling.times import PHASES, Trace
from trainer.profiling.work import matrix_rate, work_of

CPU = torch.device("cpu")
WIDTH, ROWS = 256, 64


class Denoiser(nn.Module):
    """Two frozen layers with one that learns between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.inner = nn.Sequential(nn.SiLU(), nn.Identity())
        for layer in (self.first, self.last):
            layer.requires_grad_(False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.last(self.inner(self.middle(self.first(rows))))


@pytest.fixture
def family() -> Family:
    vae = nn.Linear(10, 10)
    vae.requires_grad_(False)
    denoiser = Denoiser()
    return cast(Family, SimpleNamespace(denoiser=denoiser, loaded={"unet": denoiser, "vae": vae}))


@pytest.fixture
def step(family: Family) -> Callable[[], None]:
    """A training step in the recipe's order."""
    optimizer = torch.optim.Adam([each for each in family.denoiser.parameters() if each.requires_grad])

    def take() -> None:
        with span(DATA):
            rows = torch.ones(ROWS, WIDTH)
        noisy = rows + torch.randn(ROWS, WIDTH)
        loss = (family.denoiser(noisy) - rows).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(family.denoiser.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    take()
    return take


def test_a_step_is_told_whole(family: Family, step: Callable[[], None], tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    found = profile_step(family, step, CPU, torch.float32, step_ms=2.0, trace=trace)
    assert found.steps == PROFILED_STEPS and found.kernels is None
    assert [phase.name for phase in found.phases] == [name for name in PHASES if name != "text"]
    assert sum(phase.ms for phase in found.phases) == pytest.approx(found.profiled_step_ms, abs=0.02)
    assert all(phase.ms > 0 for phase in found.phases)
    assert 0 < found.idle_ms < found.profiled_step_ms
    assert found.busy_ms + found.idle_ms == pytest.approx(found.profiled_step_ms, abs=0.01)
    assert found.busy_share == pytest.approx(min(1.0, found.busy_ms / 2.0), abs=0.001)
    assert {"aten::mm", "aten::randn"} & {each.name for each in found.top_operations}
    # three products forward; backward one for the weights that learn, and one down to them through the last layer
    assert found.flops == 5 * 2 * ROWS * WIDTH * WIDTH
    assert found.bound_ms == pytest.approx(found.flops / found.matrix_flops_per_s * 1000, abs=0.001)
    assert found.matrix_share == pytest.approx(found.bound_ms / 2.0, abs=0.001)
    layers = {layer.name: layer for layer in found.top_layers}
    assert set(layers) == {"first", "middle", "last", "inner.0", "inner.1"}
    assert layers["middle"].backward_ms > 0 and layers["middle"].kind == "Linear"
    assert layers["first"].backward_ms == 0 and layers["first"].forward_ms > 0
    assert json.loads(trace.read_text())["traceEvents"]
    text = "\n".join(profile_lines(asdict(found)))
    assert all(name in text for name in ("backward", "idle", "TFLOP", "activations", "middle Linear"))
    with profile() as recorded:
        family.denoiser(torch.ones(1, WIDTH))
    assert not any("bench/" in event.name for event in recorded.events() or []), "hooks are left behind"


def test_memory_by_kind(family: Family, step: Callable[[], None]) -> None:
    memory = memory_by_kind(family, step, CPU)
    layer, rows = WIDTH * WIDTH * 4, ROWS * WIDTH * 4
    assert memory.denoiser == 2 * layer and memory.lora == layer and memory.gradients == layer
    assert memory.vae == (10 * 10 + 10) * 4 and memory.text_encoders == 0
    assert memory.optimizer == 2 * layer + 4  # both moments, and the number of steps
    # what the middle layer read and gave (for SiLU), and the difference that is squared
    assert memory.activations == pytest.approx(3 * rows, abs=64)
    assert memory.peak == memory.denoiser + memory.vae + memory.lora + memory.optimizer + (
        memory.activations + memory.temporary
    )
    assert memory.temporary >= layer, "the gradient is there at the peak"


def test_activations_of_accumulated_batches_are_not_added_up(family: Family, step: Callable[[], None]) -> None:
    def twice() -> None:
        step()
        step()

    assert memory_by_kind(family, twice, CPU).activations == memory_by_kind(family, step, CPU).activations


def test_adapters_belong_to_their_layer() -> None:
    class LoraLinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base_layer, self.down = nn.Linear(4, 4), nn.Linear(4, 2)

    model = nn.Sequential(nn.Sequential(LoraLinear(), nn.ReLU()), nn.Conv2d(1, 1, 1))
    assert [name for name, _ in layers_of(model)] == ["0.0", "0.1", "1"]


def test_operations_are_counted_without_views() -> None:
    rows = torch.ones(4, 8)
    work = work_of(lambda: (rows.view(8, 4).t() @ rows.view(8, 4)).relu())
    assert work.flops == 2 * 4 * 8 * 4 and work.operations == 2


def test_attention_counts_as_its_products() -> None:
    query = torch.ones(1, 2, 16, 8)
    work = work_of(lambda: nn.functional.scaled_dot_product_attention(query, query, query))
    assert work.flops == 2 * (2 * 2 * 16 * 16 * 8)


def test_the_rate_is_that_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.profiling.work.MEASURED_SECONDS", 0.05)
    monkeypatch.setattr("trainer.profiling.work.MATRIX_SIDE_ON_CPU", 128)
    assert 1e8 < matrix_rate(CPU, torch.float32) < 1e13


def test_the_work_of_stable_diffusion_is_what_others_counted() -> None:
    """0.803 TFLOP forward at 512 px; a step through the frozen model is twice to 2.4 times that."""
    meta = torch.device("meta")
    family = FAMILIES["sd1"].random("full", device=meta, dtype=torch.bfloat16)
    noisy, states = torch.empty(1, 4, 64, 64, device=meta), torch.empty(1, 77, 768, device=meta)
    time = torch.zeros(1, dtype=torch.int64, device=meta)

    def predict() -> torch.Tensor:
        return family.predict(noisy, time, Conditioning(states, {}), torch.zeros(1, 6))

    with torch.no_grad():
        assert work_of(predict).flops == pytest.approx(0.803e12, rel=0.01)


def event(name: str, start: float, end: float, **more: Any) -> Any:
    values = {
        "device_type": DeviceType.CPU, "sequence_nr": -1, "scope": 0, "kernels": [],
        "self_cpu_time_total": end - start, "cpu_time_total": end - start,
        "self_device_time_total": 0.0, "device_time_total": 0.0,
    }  # fmt: skip
    return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start, end=end), **(values | more))


def test_on_a_gpu_its_own_time_counts() -> None:
    """A step of 10 ms on the host; the GPU works for 2 + 4 of them, 1 ms of which two kernels share."""

    def kernel(name: str, start: float, end: float) -> Any:
        return event(name, start, end, device_type=DeviceType.CUDA)

    def started(name: str, start: float, end: float, *durations: float) -> Any:
        kernels = [SimpleNamespace(duration=each) for each in durations]
        total = sum(durations)
        return event(name, start, end, kernels=kernels, self_device_time_total=total, device_time_total=total)

    backward = "autograd::engine::evaluate_function: MmBackward0"
    trace = Trace(
        [
            event(f"bench/{STEP}", 0, 10_000),
            event("bench/forward", 1_000, 4_000),
            event("layer/proj", 1_000, 2_000, device_time_total=2_000.0),
            started("aten::mm", 1_100, 1_200, 2_000.0),
            event(backward, 5_000, 6_000, device_time_total=4_000.0),
            started("aten::mm", 5_100, 5_200, 3_000.0, 2_000.0),
            event("Optimizer.step#AdamW.step", 7_000, 8_000),
            kernel("gemm", 1_500, 3_500),
            kernel("gemm", 5_500, 8_500),
            kernel("gemm", 7_500, 9_500),
            kernel("bench/forward", 1_500, 3_500),
        ]
    )
    assert trace.kernels == 3
    assert trace.idle_ms == pytest.approx(10 - 2 - 4)
    phases = {phase.name: (phase.ms, phase.device_ms) for phase in trace.phases()}
    assert phases == {
        "inputs": (1.0, 0.0), "forward": (3.0, 2.0), "loss": (1.0, 0.0), "backward": (1.0, 5.0),
        "clipping": (1.0, 0.0), "optimizer": (1.0, 0.0), "rest": (2.0, 0.0),
    }  # fmt: skip
    assert [(each.name, each.calls, each.ms) for each in trace.operations(5)] == [("aten::mm", 2, 7.0)]


def test_layers_are_not_marked_outside(family: Family) -> None:
    with parts_marked(family):
        assert family.denoiser._forward_hooks
    assert not family.denoiser._forward_hooks and not family.denoiser._forward_pre_hooks
