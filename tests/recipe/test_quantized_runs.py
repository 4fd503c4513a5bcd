"""Training on a base in fewer bits: nearly the same losses, every kind of adapter, and resuming to the byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from tests.recipe.tiny_runs import losses_of, stop_at, train_here
from trainer.config import Config
from trainer.runs.store import Run, Workspace

LORA = {"rank": 4, "alpha": 2, "conv_rank": 2, "target": "full"}


@pytest.fixture(scope="module")
def run_of(config_of: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    workspace = Workspace(tmp_path_factory.mktemp("quantized") / "workspace")

    def make(kind: str, **changes: object) -> Run:
        return workspace.create_run(config_of(model={"quantize": kind}, lora=LORA | changes, train__max_steps=2))

    return make


@pytest.fixture(scope="module")
def exact(run_of: Callable[..., Run]) -> dict[int, float]:
    run = run_of("none")
    train_here(run)
    return losses_of(run)


@pytest.mark.parametrize(("kind", "far"), [("fp8", 0.05), ("int8", 0.02), ("nf4", 0.2)])
def test_losses_are_nearly_those_of_the_exact_base(
    run_of: Callable[..., Run], exact: dict[int, float], kind: str, far: float
) -> None:
    run = run_of(kind)
    train_here(run)
    losses = losses_of(run)
    assert losses.keys() == exact.keys() and losses != exact
    for step, loss in losses.items():
        assert loss == pytest.approx(exact[step], rel=far)
    trained = [tensor for name, tensor in load_file(run.output_path).items() if name.endswith("lora_up.weight")]
    assert any(tensor.ndim == 4 for tensor in trained) and all(tensor.abs().sum() > 0 for tensor in trained)


@pytest.mark.parametrize("adapter", ["dora", "lokr"])
def test_adapters_that_look_at_the_weight_train_too(run_of: Callable[..., Run], adapter: str) -> None:
    run = run_of("int8", type=adapter)
    train_here(run)
    assert len(losses_of(run)) == 2


def test_a_resumed_run_ends_as_if_never_stopped(run_of: Callable[..., Run]) -> None:
    whole, parted = run_of("nf4"), run_of("nf4")
    train_here(whole)
    stop_at(parted, ("metric", 1))
    train_here(parted)
    assert losses_of(parted) == losses_of(whole)
    ends = [load_file(run.output_path) for run in (whole, parted)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
