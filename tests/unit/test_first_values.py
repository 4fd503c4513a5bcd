"""First values of adapters: the same on every device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer as PeftLayer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.config import LoraSettings
from trainer.lora.first_values import fill_kaiming_uniform, fill_normal
from trainer.lora.peft_adapter import ADAPTER, PeftAdapter
from trainer.lora.weight_adapters import WEIGHT_ADAPTERS


class _DrawsSeen(TorchDispatchMode):
    """Notes the device of every tensor that is filled with random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in ("uniform", "normal")):
            self.devices.append(args[0].device.type)
        return func(*args, **(kwargs or {}))


@contextmanager
def draws() -> Iterator[list[str]]:
    with _DrawsSeen() as seen:
        yield seen.devices


@pytest.mark.parametrize("kind", ["lora", *WEIGHT_ADAPTERS])
def test_a_generator_of_the_cpu_is_never_asked_to_fill_another_device(kind: str) -> None:
    """A CUDA tensor refuses a CPU generator; the meta device stands in for it, and would take it without a word."""
    adapter: Any
    with torch.device("meta"):
        base = nn.Linear(16, 8)
        if kind == "lora":
            model = inject_adapter_in_model(LoraConfig(r=4, target_modules=["0"]), nn.Sequential(base), ADAPTER)
            layer = model[0]
            assert isinstance(layer, PeftLayer)
            adapter = PeftAdapter(layer)
        else:
            adapter = WEIGHT_ADAPTERS[kind](base, 4, 4.0, LoraSettings(type=kind, rank=4))  # type: ignore[arg-type]
    assert all(parameter.device.type == "meta" for parameter, _ in adapter.trained())
    with draws() as devices:
        adapter.start(base.weight, torch.Generator().manual_seed(1))
    assert devices and set(devices) == {"cpu"}


def test_the_values_are_those_of_torch() -> None:
    weight, deviate = torch.empty(8, 16), torch.empty(64, 64)
    fill_kaiming_uniform(weight, torch.Generator().manual_seed(3))
    expected = torch.empty(8, 16).uniform_(-0.25, 0.25, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(weight, expected, rtol=0, atol=1e-7), "bound sqrt(6 / (1 + 5) / 16)"
    fill_normal(deviate, 0.1, torch.Generator().manual_seed(3))
    assert abs(float(deviate.std()) - 0.1) < 0.005
