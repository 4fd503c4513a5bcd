"""A call captured in a CUDA graph: in PyTorch's order, and on a GPU with the same numbers as the call itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer import graphs
from trainer.graphs import WARM_UPS, CudaGraph, graph_maker

CPU = torch.device("cpu")


class Cuda:
    """Stands in for ``torch.cuda``: knows on which stream something happens, and in which order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.where = "current"

    def Stream(self) -> Any:
        return self._stream("side")

    def current_stream(self) -> Any:
        return self._stream("current")

    def CUDAGraph(self) -> Any:
        cuda = self

        class Graph:
            def replay(self) -> None:
                cuda.done.append("replay")

        return Graph()

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        yield

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        yield from self._within(stream.name)

    @contextmanager
    def graph(self, graph: Any, **options: Any) -> Iterator[None]:
        yield from self._within("graph")

    def _within(self, where: str) -> Iterator[None]:
        self.where = where
        yield
        self.where = "current"

    def _stream(self, name: str) -> Any:
        cuda = self

        class Stream:
            def __init__(self) -> None:
                self.name = name

            def wait_stream(self, other: Any) -> None:
                cuda.done.append(f"{name} waits for {other.name}")

        return Stream()


def test_the_order_of_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up on a side stream that waits for the inputs, and is waited for (PyTorch's "CUDA Graphs")."""
    cuda = Cuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    buffers: set[int] = set()

    def function(given: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        cuda.done.append(cuda.where)
        buffers.add(given.data_ptr())
        return given * 2

    given = torch.ones(3)
    graph = CudaGraph(function, [given])
    waits = ["side waits for current", *["side"] * WARM_UPS, "current waits for side"]
    assert cuda.done == [*waits, "graph"]
    assert len(buffers) == 1 and given.data_ptr() not in buffers
    graph.replay([given + 1])
    assert cuda.done[-1] == "replay"
    assert torch.equal(graph._inputs[0], given + 1) and torch.equal(given, torch.ones(3))


def test_only_gpus_have_graphs() -> None:
    assert graph_maker(CPU) is None
    assert graph_maker(torch.device("cuda", 0)) is graphs.CudaGraph


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_gives_what_the_call_gives() -> None:
    device = torch.device("cuda", 0)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(4, 32, 3, padding=1), nn.SiLU(), nn.GroupNorm(4, 32)).to(device, torch.float16)
    before = torch.cuda.memory_allocated(device)
    with torch.no_grad():
        graph = CudaGraph(layers, [torch.randn(2, 4, 16, 16, device=device, dtype=torch.float16)])
        for _ in range(2):
            given = torch.randn(2, 4, 16, 16, device=device, dtype=torch.float16)
            assert torch.equal(graph.replay([given]), layers(given))
        layers[0].weight.mul_(0.5)
        assert torch.equal(graph.replay([given]), layers(given))
        with pytest.raises(RuntimeError):
            CudaGraph(lambda given: given * given.sum().item(), [given])
        torch.cuda.synchronize()
        assert torch.equal(graph.replay([given]), layers(given))
    del graph, given
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated(device) <= before + 2**20
