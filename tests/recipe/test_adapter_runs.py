"""Options of the adapter in whole runs: they reach the step, the metrics and the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.recipe.tiny_runs import losses_of, of_type, stop_at, train_here
from trainer.generate import Painter
from trainer.lora.file import LoraFile, LoraLayer, read_lora, write_lora
from trainer.pictures import LoraUse, PictureSettings
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


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr"])
def test_a_kind_trains_resumes_and_draws_the_same_in_generate(kind: str, workspace: Workspace, config_of) -> None:
    """Every dropout on, stopped halfway: the same bytes; and the file draws the run's own preview."""
    prompt = {"prompt": "a big red circle", "steps": 3, "guidance": 3.0, "seed": 11, "width": 64, "height": 64}
    options = dict.fromkeys(("lora__dropout", "lora__rank_dropout", "lora__module_dropout"), 0.2)
    config = config_of(
        lora__type=kind,
        lora__train="both",
        lora__conv_rank=2,
        lora__target="full",
        lora__max_norm=3.0,
        train__max_steps=4,
        train__learning_rate=2e-2,
        train__lr_scheduler="constant",
        output__save_every_steps=2,
        samples__prompts=[prompt],
        samples__every_steps=4,
        samples__at_start=True,
        **options,
    )
    whole, stopped = (workspace.create_run(config) for _ in range(2))
    train_here(whole)
    stop_at(stopped, ("checkpoint", 2))
    train_here(stopped)
    assert losses_of(stopped) == losses_of(whole)
    assert stopped.output_path.read_bytes() == whole.output_path.read_bytes()

    before, after = (pixels(whole.dir / event["path"]) for event in of_type(whole, "sample"))
    assert np.abs(after - before).mean() > 2, "strong enough to see"
    painter = Painter("demo", torch.device("cpu"))
    painter.use([LoraUse(path=str(whole.output_path), weight=1.0)])
    drawn = painter.draw(PictureSettings(**prompt), prompt["seed"])
    assert np.abs(np.asarray(drawn.convert("RGB"), dtype=np.int16) - after).max() <= 1


def test_a_run_from_a_dora_of_the_other_direction_resumes_without_that_file(workspace: Workspace, config_of) -> None:
    """A length for each output, as in some tools' files: the checkpoint says so when the file is gone."""
    first = workspace.create_run(config_of(lora__type="dora", train__max_steps=1))
    train_here(first)
    layers = read_lora(first.output_path).layers
    rows = {
        key: replace(layer, magnitude=torch.ones(len(layer.up), *[1] * (layer.down.ndim - 1)))
        for key, layer in layers.items()
        if isinstance(layer, LoraLayer)
    }
    start = workspace.dir / "start.safetensors"
    write_lora(start, LoraFile(rows, {}), precision="float")
    config = config_of(lora__type="dora", lora__init_from=str(start), train__max_steps=4, output__save_every_steps=2)
    whole, stopped = (workspace.create_run(config) for _ in range(2))
    train_here(whole)
    stop_at(stopped, ("checkpoint", 2))
    start.unlink()
    train_here(stopped)
    assert losses_of(stopped) == losses_of(whole)
    finished = read_lora(stopped.output_path).layers
    assert all(layer.magnitude is not None and layer.magnitude.shape[0] != 1 for layer in finished.values())
    assert stopped.output_path.read_bytes() == whole.output_path.read_bytes()


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.int16)


def test_merging_before_training_changes_the_run_and_needs_no_cache_of_its_captions(
    losses, workspace: Workspace, config_of
) -> None:
    first = workspace.create_run(config_of(**FEW, lora__train="both"))
    train_here(first)
    merged = [{"path": str(first.output_path), "ratio": 1.0}]
    run = workspace.create_run(config_of(**FEW, lora__merge_before_training=merged))
    train_here(run)
    assert losses_of(run)[1] != losses[1], "the base is another from the first step on"
    again = workspace.create_run(config_of(**FEW))
    train_here(again)
    assert losses_of(again) == losses, "nothing of it stays in the caches"


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_gradient_checkpointing_changes_nothing(kind: str, workspace: Workspace, config_of) -> None:
    """The layers' own recomputation lies inside that of the blocks, dropouts and all."""
    options = dict.fromkeys(("lora__dropout", "lora__rank_dropout", "lora__module_dropout"), 0.3)
    losses = []
    for checkpointing in (False, True):
        config = config_of(**FEW, **options, lora__type=kind, train__gradient_checkpointing=checkpointing)
        run = workspace.create_run(config)
        train_here(run)
        losses.append(losses_of(run))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(losses[0]) == 3


@pytest.mark.parametrize("still", ["text_encoder", "unet"])
def test_a_learning_rate_of_zero_leaves_a_part_alone(still: str, workspace: Workspace, config_of) -> None:
    """Both parts have adapters; weight decay has nothing to do where the rate is 0."""
    rates = {"train__learning_rate": 0.0, "train__text_encoder_learning_rate": 1e-2}
    if still == "text_encoder":
        rates = {"train__learning_rate": 1e-2, "train__text_encoder_learning_rate": 0.0}
    run = workspace.create_run(config_of(**(FEW | rates), lora__train="both"))
    train_here(run)
    moved = {key: bool(layer.delta().any()) for key, layer in read_lora(run.output_path).layers.items()}
    prefix = "lora_te" if still == "text_encoder" else "lora_unet"
    assert len({key.startswith(prefix) for key in moved}) == 2
    assert all(has_moved != key.startswith(prefix) for key, has_moved in moved.items())
