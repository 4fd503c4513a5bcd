"""``train.deterministic`` in whole runs; on a GPU it is what makes resuming exact."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.recipe.tiny_runs import Watcher, losses_of, stop_at, train_here
from trainer.config import Config
from trainer.devices import use_deterministic
from trainer.runs.store import Workspace


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    use_deterministic(False)


def test_a_run_computes_as_it_was_told_to(workspace: Workspace, config_of: Callable[..., Config]) -> None:
    """The step runs with deterministic algorithms, or without: one after the other in a process."""
    for wanted in (True, False):
        seen: list[bool] = []
        look = {("training", 0): lambda seen=seen: seen.append(torch.are_deterministic_algorithms_enabled())}
        config = config_of(train__deterministic=wanted, train__max_steps=1, output__save_every_steps=0)
        train_here(workspace.create_run(config), Watcher(look))
        assert seen == [wanted]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["no", "fp16", "bf16"])
def test_resuming_is_exact_on_a_gpu(workspace: Workspace, config_of: Callable[..., Config], precision: str) -> None:
    changes = {"train__deterministic": True, "train__mixed_precision": precision, "lora__dropout": 0.2}
    undisturbed, stopped = (workspace.create_run(config_of(**changes, lora__train="both")) for _ in range(2))
    train_here(undisturbed)
    stop_at(stopped, ("checkpoint", 3))
    train_here(stopped)
    assert losses_of(stopped) == losses_of(undisturbed)
    assert stopped.output_path.read_bytes() == undisturbed.output_path.read_bytes()
    shutil.rmtree(workspace.dir)
