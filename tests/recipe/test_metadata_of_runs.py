"""The metadata of files that real runs leave: totals over all sessions, and no path of anybody's machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.recipe.tiny_runs import make_pictures, stop_at, train_here
from trainer.config_io import save_config
from trainer.demo import MODEL_DIR
from trainer.lora.file import read_lora
from trainer.runs.store import Run, Workspace


def totals(run: Run) -> tuple[str, ...]:
    metadata = read_lora(run.output_path).metadata
    names = ("ss_steps", "ss_epoch", "ss_max_train_steps", "ss_num_epochs")
    return tuple(metadata[name] for name in names)


def test_a_stopped_resumed_and_extended_run_counts_all_its_steps(config_of: Any, workspace: Workspace) -> None:
    """Three pictures in batches of two: two batches an epoch."""
    run = workspace.create_run(config_of(train__max_steps=5, train__lr_scheduler="constant"))
    stop_at(run, ("metric", 3))
    assert totals(run) == ("3", "1", "5", "3")
    train_here(run)
    assert totals(run) == ("5", "2", "5", "3")
    config = run.config()
    config.train.max_steps = 8
    save_config(config, run.config_path)
    train_here(run)
    assert totals(run) == ("8", "4", "8", "4")
    fresh = workspace.create_run(config)
    train_here(fresh)
    assert fresh.output_path.read_bytes() == run.output_path.read_bytes(), "in one go it is the same file"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory, config_of: Any) -> Path:
    """Folders for everything that a config can point at, all under one name."""
    root = tmp_path_factory.mktemp("hidden") / "jane.doe"
    make_pictures(root / "photos-of-jane")
    make_pictures(root / "held-back", 1)
    (root / "captions-of-jane.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "jane at home"}))
    (root / "masks-of-jane").mkdir()
    for number in range(3):
        Image.new("L", (64, 64), 255).save(root / "masks-of-jane" / f"{number}.png")
    shutil.copytree(MODEL_DIR / "vae", root / "some-vae" / "vae")
    run = Workspace(root / "place-of-work").create_run(config_of(train__max_steps=1))
    train_here(run)
    (root / "former-loras").mkdir()
    shutil.copy(run.output_path, root / "former-loras" / "former.safetensors")
    return root


def test_no_path_is_told(private: Path, config_of: Any) -> None:
    former = str(private / "former-loras" / "former.safetensors")
    source = {
        "path": str(private / "photos-of-jane"),
        "class_prompt": "jane",
        "metadata_file": str(private / "captions-of-jane.jsonl"),
        "mask_path": str(private / "masks-of-jane"),
    }
    config = config_of(
        train__max_steps=1,
        dataset__sources=[source],
        loss__masked="mask",
        model__vae=str(private / "some-vae"),
        validation__path=str(private / "held-back"),
        lora__init_from=former,
        lora__merge_before_training=[{"path": former, "ratio": 0.5}],
    )
    run = Workspace(private / "place-of-work").create_run(config)
    train_here(run)
    told = read_lora(run.output_path).metadata
    assert told["ss_vae_name"] == "some-vae" and told["ss_num_validation_images"] == "1"
    names = ["jane", "photos", "masks", "held-back", "former", "place-of-work", private.parent.name]
    found = {(name, key) for key, value in told.items() for name in names if name in value}
    assert not found
    assert not {key for key, value in told.items() if str(private) in value or "\\" in value.replace('\\"', "")}
    slashed = {key for key, value in told.items() if "/" in value}
    assert slashed == {"modelspec.architecture"}
