"""Strengths read from a tensor give the very bits of PEFT's numbers, in each format."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer as LoraTunerLayer
from torch import Tensor, nn

from tests.unit.capture_checker import RecordedGraph
from trainer.lora.scalings import Scalings, active_adapters


def adapted(dtype: torch.dtype) -> tuple[nn.Module, list[LoraTunerLayer]]:
    """A linear layer and a convolution with two adapters each, both active."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Linear(6, 6))
    for name in ("one", "two"):
        config = LoraConfig(r=2, target_modules=["0", "1"], init_lora_weights=False)
        module = inject_adapter_in_model(config, module, adapter_name=name)
    layers = [each for each in module.modules() if isinstance(each, LoraTunerLayer)]
    for layer in layers:
        layer.set_adapter(["one", "two"])
    return module.to(dtype).requires_grad_(False), layers


def set_strengths(layers: list[LoraTunerLayer], one: float, two: float) -> None:
    for layer in layers:
        layer.set_scale("one", one)
        layer.set_scale("two", two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bits(dtype: torch.dtype) -> None:
    module, layers = adapted(dtype)
    given = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    scalings = Scalings(module)
    with scalings.in_place():
        graph = RecordedGraph(module, [given])
    seen: list[Tensor] = []
    for one, two in ((0.7, -1.4), (0.7003, -1.4), (2 / 3, 0.0)):
        set_strengths(layers, one, two)
        assert {type(number) for layer in layers for number in layer.scaling.values()} == {float}
        scalings.refresh()
        replayed = graph.replay([given]).clone()
        assert torch.equal(replayed, module(given))
        seen.append(replayed)
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_numbers_come_back_after_an_error() -> None:
    module, layers = adapted(torch.float32)
    before = [dict(layer.scaling) for layer in layers]
    with pytest.raises(RuntimeError), Scalings(module).in_place():
        raise RuntimeError
    assert [dict(layer.scaling) for layer in layers] == before


def test_only_adapters_that_take_part() -> None:
    module, layers = adapted(torch.float32)
    assert [name for _, name in active_adapters(module)] == ["one", "two"] * 2
    layers[0].set_adapter(["two"])
    layers[1].enable_adapters(False)
    assert active_adapters(module) == [(layers[0], "two")]
    layers[0].enable_adapters(False)
    Scalings(module).refresh()
