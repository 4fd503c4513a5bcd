"""How much a step has to compute, and how fast this very device computes: the bound beside a step's time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from trainer.devices import features_of, wait_for

MATRIX_SIDE, MATRIX_SIDE_ON_CPU = 8192, 1024
"""Rows and columns of the matrices with which a device's rate is measured: large enough to be at its best."""
MEASURED_SECONDS = 0.5


@dataclass(frozen=True)
class Work:
    """What a step computes.

    Attributes:
        flops: of matrix products, convolutions and attention; a multiplication and an addition are two.
        operations: calls of PyTorch's operations that compute something, views left out.
    """

    flops: int
    operations: int


class _OperationCount(TorchDispatchMode):
    """Counts the operations within that are no mere views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def work_of(step: Callable[[], object]) -> Work:
    """Run a step twice and count. Attention is computed as matrix products once, as those are what can be counted."""
    flops, operations = FlopCounterMode(display=False), _OperationCount()
    with sdpa_kernel(SDPBackend.MATH), flops:
        step()
    with operations:
        step()
    return Work(flops.get_total_flops(), operations.count)


@torch.no_grad()
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of a large square matrix product: what this device reaches at best in this format."""
    side = MATRIX_SIDE if features_of(device).beside_host else MATRIX_SIDE_ON_CPU
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    done, begun = -1, time.perf_counter()
    while time.perf_counter() - begun < MEASURED_SECONDS or done < 1:
        torch.mm(left, right)
        wait_for(device)
        if done < 0:  # the first one chooses its kernel
            begun = time.perf_counter()
        done += 1
    return done * 2 * side**3 / (time.perf_counter() - begun)
