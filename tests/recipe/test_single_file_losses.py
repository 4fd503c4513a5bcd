"""A model trains the same, to the bit, as a folder, as a .safetensors file and as a .ckpt; and merges, and draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.recipe.tiny_runs import Watcher, losses_of, train_here
from tests.unit.single_file_samples import sample, save_folder, write_file
from trainer.__main__ import main
from trainer.config import Config
from trainer.runs.store import Workspace

STEPS = 3


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_file_and_folder_train_to_the_same_losses(
    kind: str, config_of: Callable[..., Config], workspace: Workspace, tmp_path: Path
) -> None:
    pipeline, weights = sample(kind)
    bases = {
        "folder": save_folder(pipeline, tmp_path / "model"),
        "safetensors": write_file(tmp_path / "model.safetensors", weights),
        "ckpt": write_file(tmp_path / "model.ckpt", weights),
    }
    losses, told = {}, {}
    for name, base in bases.items():
        run = workspace.create_run(config_of(model={"base": str(base)}, train__max_steps=STEPS))
        watcher = Watcher()
        train_here(run, watcher)
        losses[name] = losses_of(run)
        told[name] = {event["what"] for event in watcher.events if event["type"] == "progress"}
    assert len(losses["folder"]) == STEPS and all(loss > 0 for loss in losses["folder"].values())
    assert losses["folder"] == losses["safetensors"] == losses["ckpt"]
    assert "converting the model file" in told["safetensors"] - told["folder"]


def test_a_file_is_merged_into_and_drawn_with_as_its_folder_is(
    config_of: Callable[..., Config], workspace: Workspace, tmp_path: Path
) -> None:
    pipeline, weights = sample("sd1")
    bases = [save_folder(pipeline, tmp_path / "model"), write_file(tmp_path / "model.safetensors", weights)]
    run = workspace.create_run(config_of(model={"base": str(bases[1])}, train__max_steps=1))
    train_here(run)

    merged = []
    for number, base in enumerate(bases):
        out = tmp_path / f"merged-{number}"
        arguments = ["--base", str(base), "--lora", f"{run.output_path}=1", "--out", str(out)]
        assert main(["merge", *arguments]) == 0
        merged.append(load_file(out / "unet" / "diffusion_pytorch_model.safetensors"))
    assert merged[0].keys() == merged[1].keys()
    assert all(torch.equal(tensor, merged[1][name]) for name, tensor in merged[0].items())

    pictures = []
    for number, base in enumerate([*bases, tmp_path / "merged-1"]):
        out = tmp_path / f"pictures-{number}"
        size = ["--width", "64", "--height", "64", "--steps", "2", "--sampler", "ddim"]
        arguments = ["--prompt", "a cat", "--model", str(base), "--out", str(out), *size]
        assert main(["generate", *arguments]) == 0
        pictures.append(Image.open(next(out.glob("*.png"))).tobytes())
    assert pictures[0] == pictures[1] != pictures[2]
