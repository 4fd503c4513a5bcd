"""What a resumed run needs of the files it was begun with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.recipe.tiny_runs import losses_of, stop_at, train_here
from trainer.config import Config
from trainer.config_io import save_config
from trainer.devices import seeded_generator
from trainer.errors import UserError
from trainer.families import load_family
from trainer.lora.adapter import adapter_layers, add_adapters
from trainer.lora.file import LoraFile, write_lora
from trainer.runs.store import Run, Workspace

SMALL = {"lora__target": "attention", "train__max_steps": 3, "output__save_every_steps": 1}


def write_a_lora(path: Path, config: Config, seed: int) -> Path:
    family = load_family(config.model, device=torch.device("cpu"), dtype=torch.float32)
    for number, trainable in enumerate(add_adapters(family, config.lora, seed=seed)):
        trainable.parameter.data.normal_(std=0.05, generator=seeded_generator(seed, number))
    write_lora(path, LoraFile(adapter_layers(family), {}), precision="float")
    return path


def test_the_file_to_start_from_is_needed_once(workspace: Workspace, config_of, tmp_path: Path) -> None:
    """Frozen layers keep the file's values too."""
    start = write_a_lora(tmp_path / "start.safetensors", config_of(**SMALL), seed=1)
    config = config_of(**SMALL, lora__init_from=str(start), lora__block_lrs={r"^unet\.mid_block": 0})
    undisturbed, stopped = workspace.create_run(config), workspace.create_run(config)
    train_here(undisturbed)
    stop_at(stopped, ("checkpoint", 1))
    start.unlink()
    train_here(stopped)
    assert losses_of(stopped) == losses_of(undisturbed)
    assert stopped.output_path.read_bytes() == undisturbed.output_path.read_bytes()
    with pytest.raises(UserError, match=r"start\.safetensors"):
        train_here(workspace.create_run(config))


@pytest.fixture
def merging(workspace: Workspace, config_of: Callable[..., Config], tmp_path: Path) -> tuple[Run, Path]:
    """A run on top of a LoRA, stopped after its first step, and that LoRA."""
    base = write_a_lora(tmp_path / "base.safetensors", config_of(**SMALL), seed=1)
    run = workspace.create_run(config_of(**SMALL, lora__merge_before_training=[{"path": str(base), "ratio": 0.5}]))
    stop_at(run, ("checkpoint", 1))
    return run, base


def change(run: Run, **values: object) -> None:
    config = run.config()
    config.lora.merge_before_training[0] = config.lora.merge_before_training[0].model_copy(update=values)
    save_config(config, run.config_path)


def test_merged_files_must_be_the_same(merging: tuple[Run, Path], config_of, tmp_path: Path) -> None:
    run, _ = merging
    manifest = json.loads((run.checkpoints_dir / "step-000001" / "manifest.json").read_text())
    assert [each["ratio"] for each in manifest["merged"]] == [0.5] and len(manifest["merged"][0]["sha256"]) == 64

    other = write_a_lora(tmp_path / "other.safetensors", config_of(**SMALL), seed=2)
    change(run, path=str(other), ratio=0.75)
    with pytest.raises(UserError) as caught:
        train_here(run)
    assert [problem.field for problem in caught.value.problems] == [
        "lora.merge_before_training.0.path",
        "lora.merge_before_training.0.ratio",
    ]
    assert "begun with" in str(caught.value) and run.read().exit_code == 2
    change(run, path=str(tmp_path / "gone.safetensors"), ratio=0.5)
    with pytest.raises(UserError, match=r"gone\.safetensors"):
        train_here(run)
    config = run.config()
    config.lora.merge_before_training = []
    save_config(config, run.config_path)
    with pytest.raises(UserError, match="begun with 1 files"):
        train_here(run)


def test_merged_files_may_lie_elsewhere(merging: tuple[Run, Path], tmp_path: Path) -> None:
    run, base = merging
    moved = base.rename(tmp_path / "moved.safetensors")
    change(run, path=str(moved))
    train_here(run)
    assert run.read().state == "finished"
