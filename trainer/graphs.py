"""A function of tensors that the GPU runs by itself: the CPU starts one graph in place of thousands of kernels.

What a graph cannot hold, and what has to be done before it is captured: PyTorch's documentation, "CUDA semantics",
section "CUDA Graphs".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from trainer.devices import features_of

WARM_UPS = 3
"""Calls before the capture, in which libraries choose their kernels and take their workspaces."""

Function = Callable[..., Tensor]


class Graph(Protocol):
    """A function that was captured with inputs of certain shapes. Whatever else it reads stays where it lies."""

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """The function of these inputs. The result is overwritten by the next replay: who needs it longer clones it."""


GraphMaker = Callable[[Function, Sequence[Tensor]], Graph]
"""Captures a function. Raises RuntimeError where that cannot be."""


def graph_maker(device: torch.device) -> GraphMaker | None:
    """What captures functions on a device, each graph with memory of its own; None where nothing can.

    In a shared memory they would have to be replayed in the order of their captures, as results lie there too.
    """
    return CudaGraph if features_of(device).graphs else None


def sharing_graph_maker() -> GraphMaker:
    """What captures functions that were called with such inputs before, with gradients, in memory that they share.

    They may be replayed in any order, each once the one before it is done: nothing that one leaves there may be needed
    once another is replayed. A pool whose last graph is gone cannot be used again: then another maker is due.
    """
    return functools.partial(CudaGraph, warm_ups=0, pool=torch.cuda.graph_pool_handle())


def is_capturing() -> bool:
    """Whether what is called now is captured, and not computed."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class CudaGraph:
    """See ``Graph``. Inputs are copied into buffers of its own, and its memory goes back with it."""

    def __init__(
        self, function: Function, inputs: Sequence[Tensor], *, warm_ups: int = WARM_UPS, pool: Any = None
    ) -> None:
        """Capture ``function(*inputs)``.

        Args:
            function: see ``Graph``.
            inputs: at least one, all on one GPU.
            warm_ups: calls before the capture.
            pool: of ``torch.cuda.graph_pool_handle``; None for memory of its own.

        Raises:
            RuntimeError: it cannot be captured.
        """
        device = inputs[0].device
        self._inputs = [each.clone() for each in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.device(device):
            if warm_ups:
                self._warm_up(function, warm_ups)
            # A thread that pins memory meanwhile is none of this capture's business
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._output = function(*self._inputs)

    def _warm_up(self, function: Function, times: int) -> None:
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(times):
                function(*self._inputs)
        current.wait_stream(side)

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """See ``Graph``."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output
