"""A function of tensors that the GPU runs by itself: the CPU starts one graph in place of thousands of kernels.

What a graph cannot hold, and what has to be done before it is captured: PyTorch's documentation, "CUDA semantics",
section "CUDA Graphs".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

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
    """What captures functions on a device; None where nothing can."""
    return CudaGraph if device.type == "cuda" else None


class CudaGraph:
    """See ``Graph``. Inputs are copied into buffers of its own, and its memory goes back with it.

    Each has a memory pool of its own: in a shared one they would have to be replayed in the order of their captures.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        """Capture ``function(*inputs)``; inputs are on one GPU. Raises RuntimeError where that cannot be."""
        device = inputs[0].device
        self._inputs = [each.clone() for each in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.device(device):
            current, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    function(*self._inputs)
            current.wait_stream(side)
            with torch.cuda.graph(self._graph):
                self._output = function(*self._inputs)

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """See ``Graph``."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._output
