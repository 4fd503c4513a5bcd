"""A model trains the same, to the bit, as a folder, as a .safetensors file and as a .ckpt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.recipe.tiny_runs import Watcher, losses_of, train_here
from tests.unit.single_file_samples import save_folder, sd1_pipeline, sd1_weights, write_file
from trainer.config import Config
from trainer.runs.store import Workspace

STEPS = 3


def test_file_and_folder_train_to_the_same_losses(
    config_of: Callable[..., Config], workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = sd1_weights(sd1_pipeline())
    bases = {
        "folder": save_folder(sd1_pipeline(), tmp_path / "model"),
        "safetensors": write_file(tmp_path / "model.safetensors", weights),
        "ckpt": write_file(tmp_path / "model.ckpt", weights),
    }
    losses, results, told = {}, {}, {}
    for name, base in bases.items():
        config = config_of(model={"base": str(base)}, train__max_steps=STEPS)
        run = workspace.create_run(config)
        watcher = Watcher()
        train_here(run, watcher)
        losses[name] = losses_of(run)
        results[name] = run.output_path.read_bytes()
        told[name] = {event["what"] for event in watcher.events if event["type"] == "progress"}
    assert len(losses["folder"]) == STEPS and all(loss > 0 for loss in losses["folder"].values())
    assert losses["folder"] == losses["safetensors"] == losses["ckpt"]
    assert "converting the model file" in told["safetensors"] - told["folder"]
