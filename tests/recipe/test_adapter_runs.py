"""Options of the adapter in whole runs: they reach the step, the metrics and the file."""

from __future__ import annotations

import pytest
import torch

from tests.recipe.tiny_runs import losses_of, of_type, train_here
from trainer.lora.file import read_lora
from trainer.runs.store import Workspace

FEW = {"train__max_steps": 3, "train__learning_rate": 1e-2, "train__lr_scheduler": "constant"}


@pytest.fixture
def losses(workspace: Workspace, config_of) -> dict[int, float]:
    """Of a run without options."""
    run = workspace.create_run(config_of(**FEW))
    train_here(run)
    return losses_of(run)


@pytest.mark.parametrize(
    "option",
    [
        {"lora__rank_stabilized": True},
        {"lora__rank_dropout": 0.5},
        {"lora__module_dropout": 0.5},
        {"lora__max_norm": 0.005},
        {"lora__block_lrs": {"attn1": 0.1}},
        {"train__loraplus_lr_ratio": 16},
    ],
    ids=lambda option: next(iter(option)),
)
def test_an_option_changes_the_run(losses, workspace: Workspace, config_of, option) -> None:
    run = workspace.create_run(config_of(**FEW, **option))
    train_here(run)
    changed = losses_of(run)
    assert set(changed) == set(losses) and changed[3] != losses[3]
    assert all(torch.isfinite(torch.tensor(loss)) for loss in changed.values())


def test_the_norm_limit_holds_in_the_file_and_is_told(workspace: Workspace, config_of) -> None:
    run = workspace.create_run(config_of(**FEW, lora__max_norm=0.005))
    train_here(run)
    layers = read_lora(run.output_path).layers.values()
    norms = [float(layer.delta(torch.float64).norm()) for layer in layers]
    assert max(norms) <= 0.005 * 1.0001
    told = [event["layers_scaled"] for event in of_type(run, "metric")]
    assert len(told) == 3 and 0 < told[-1] <= len(norms)
