"""Saving, validating and drawing by epochs and at named steps, in real runs that are stopped, resumed and extended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.recipe.tiny_runs import losses_of, of_type, stop_at, train_here
from trainer.__main__ import main
from trainer.checkpoint_folders import checkpoints, step_of
from trainer.runs.store import Run, Workspace

PROMPT = {"prompt": "a red circle", "steps": 1, "width": 64, "height": 64, "guidance": 1}
BY_EPOCHS = {  # three pictures, two batches an epoch
    "lora__target": "attention",
    "train__max_steps": 9,
    "train__lr_scheduler": "constant",
    "output__save_every_epochs": 2,
    "output__save_every_steps": 1,
    "output__save_at": [1, 5],
    "output__keep_last": 9,
    "samples__every_epochs": 3,
    "samples__every_steps": 1,
    "samples__prompts": [PROMPT],
    "validation__split": 0.3,
    "validation__every_epochs": 1,
    "validation__every_steps": 1,
    "validation__timesteps": 1,
}


@pytest.fixture
def make_run(config_of, workspace: Workspace) -> Callable[..., Run]:
    return lambda **changes: workspace.create_run(config_of(**{**BY_EPOCHS, "train__batch_size": 1, **changes}))


def done(run: Run) -> dict[str, Any]:
    return {
        "saved": [event["step"] for event in of_type(run, "checkpoint")],
        "kept": [step_of(path) for path in checkpoints(run.checkpoints_dir)],
        "drawn": [event["step"] for event in of_type(run, "sample")],
        "validated": [event["step"] for event in of_type(run, "validation")],
    }


def test_by_epochs_stopped_and_resumed_and_extended(make_run) -> None:
    """Two pictures are trained on: an epoch is two steps. Epochs win over steps; named steps come besides."""
    plain, stopped, extended = make_run(), make_run(), make_run(train__max_steps=3)
    train_here(plain)
    assert done(plain) == {
        "saved": [1, 4, 5, 8, 9],
        "kept": [1, 4, 5, 8, 9],
        "drawn": [6, 9],
        "validated": [0, 2, 4, 6, 8, 9],
    }
    stop_at(stopped, ("validation", 6))
    train_here(stopped)
    assert losses_of(stopped) == losses_of(plain)
    assert done(stopped) == {**done(plain), "saved": [1, 4, 5, 6, 8, 9], "kept": [1, 4, 5, 6, 8, 9]}
    assert stopped.output_path.read_bytes() == plain.output_path.read_bytes()

    train_here(extended)
    assert main(["resume", str(extended.dir), "--max-steps", "9", "--json"]) == 0
    assert losses_of(extended) == losses_of(plain)
    assert done(extended) == {
        "saved": [1, 3, 4, 5, 8, 9],
        "kept": [1, 3, 4, 5, 8, 9],
        "drawn": [3, 6, 9],
        "validated": [0, 2, 3, 4, 6, 8, 9],
    }
    assert extended.output_path.read_bytes() == plain.output_path.read_bytes()


def test_accumulation_counts_epochs_by_batches(make_run) -> None:
    """Three batches a step, two an epoch: epochs 1, 3, 4 are behind after steps 1, 2, 3."""
    run = make_run(train__max_steps=4, train__gradient_accumulation_steps=3, output__save_at=[], samples__prompts=[])
    train_here(run)
    assert done(run)["saved"] == [2, 3, 4], "two epochs and more, then four, then six at the end"
    assert done(run)["validated"] == [0, 1, 2, 3, 4]
    assert run.read().epoch == 6
