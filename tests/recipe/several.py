"""Several trainer processes that train one run, started as a launcher does it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests import forked
from trainer.config import Config
from trainer.config_io import save_config
from trainer.lora.file import read_lora
from trainer.runs.events import read_events
from trainer.runs.store import Run, Workspace

CLOSE = 1e-5
"""How near the losses of several processes are to those of one."""


def start_several(
    count: int, *arguments: str, first: Callable[[], None] | None = None, **environment: str
) -> list[forked.Command]:
    """``python -m trainer`` with these arguments in so many processes, the first one first.

    ``first`` is called in each of them before the command.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    places = [{"RANK": str(number), "LOCAL_RANK": str(number)} for number in range(count)]
    own = [{"OMP_NUM_THREADS": "1", **shared, **place, **environment} for place in places]
    return [forked.start(*arguments, first=first, **each) for each in own]


def train_several(count: int, config: Config, workspace: Workspace) -> Run:
    """A run trained from start to end by so many processes, none of which says anything but the first."""
    path = workspace.dir / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_config(config, path)
    processes = start_several(count, "train", str(path), "--workspace", str(workspace.dir))
    told = [process.communicate() for process in processes]
    assert [process.poll() for process in processes] == [0] * count, told
    return workspace.runs()[0]


def wait_for_event(run: Run, kind: str, step: int, seconds: float = 120) -> None:
    """Wait until a run has told something of a step."""
    until = time.monotonic() + seconds
    while not any(event["type"] == kind and event["step"] >= step for event in read_events(run.events_path)):
        assert time.monotonic() < until, f"no {kind} of step {step} after {seconds} s"
        time.sleep(0.02)


def numbers_of(run: Run, name: str) -> list[float]:
    """One of the metrics, by steps; a step that was done twice must have had the same number twice, nearly."""
    found: dict[int, float] = {}
    for event in read_events(run.events_path):
        if event["type"] == "metric":
            assert abs(found.setdefault(event["step"], event[name]) - event[name]) < CLOSE
    return [found[step] for step in sorted(found)]


def weights_of(lora: Path) -> torch.Tensor:
    """All numbers of a LoRA in a row."""
    layers = read_lora(lora).layers
    return torch.cat([factor.flatten() for _, layer in sorted(layers.items()) for factor in (layer.down, layer.up)])


def assert_same_numbers(run: Run, other: Run) -> None:
    """That two runs had the same losses, lengths of gradients and rates at all steps."""
    for name in ("loss", "grad_norm", "lr"):
        assert numbers_of(run, name) == pytest.approx(numbers_of(other, name), abs=CLOSE)


def assert_same(run: Run, other: Run) -> None:
    """That two runs have learned the same."""
    assert_same_numbers(run, other)
    assert (weights_of(run.output_path) - weights_of(other.output_path)).abs().max() < CLOSE


def wait_for_state(run: Run, state: str, seconds: float = 120) -> None:
    """Wait until a run is in a state."""
    until = time.monotonic() + seconds
    while run.read().state != state:
        assert time.monotonic() < until, f"not {state} after {seconds} s"
        time.sleep(0.02)


def all_end(processes: Sequence[forked.Command], seconds: float) -> float:
    """Wait for the end of all; returns how long that took. Raises AssertionError where it takes longer."""
    begun = time.monotonic()
    for process in processes:
        process.wait(max(0.1, seconds - (time.monotonic() - begun)))
    return time.monotonic() - begun
