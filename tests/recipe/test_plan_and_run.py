"""What the plan says is what the run does: steps, epochs, and the bucket table, batch by batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.tiny_runs import losses_of, of_type, train_here
from tests.unit.dataset_samples import write_pictures
from trainer import recipe
from trainer.data.training_set import Batch
from trainer.planner import plan
from trainer.runs.store import Workspace

SIZES = [(64, 64)] * 3 + [(128, 64)] * 2 + [(64, 128)]
CONFIGS: dict[str, dict[str, Any]] = {
    "batch of one": {"train__max_steps": 7, "train__batch_size": 1},
    "epochs, repeats": {"train__epochs": 2, "train__batch_size": 2, "repeats": 2},
    "accumulation across epochs": {"train__epochs": 2, "train__batch_size": 1, "train__gradient_accumulation_steps": 5},
    "no buckets": {"train__epochs": 1, "train__batch_size": 4, "enabled": False},
    "regularization": {"train__epochs": 1, "train__batch_size": 3, "prior": 2},
    "several resolutions": {"train__epochs": 1, "train__batch_size": 2, "sides": [[128, 64], [64, 64]], "repeats": 2},
    "held back": {"train__epochs": 2, "train__batch_size": 2, "validation__split": 0.34, "validation__timesteps": 1},
}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_the_run_does_what_was_planned(
    config_of, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    changes = dict(changes)
    write_pictures(tmp_path / "in", SIZES)
    sources: list[dict[str, Any]] = [{"path": str(tmp_path / "in"), "repeats": changes.pop("repeats", 1)}]
    if prior := changes.pop("prior", 0):
        write_pictures(tmp_path / "prior", [(64, 64)] * prior)
        sources.append({"path": str(tmp_path / "prior"), "is_regularization": True})
    buckets = {"min": 64, "max": 128, "step": 64, "upscale": True, "enabled": changes.pop("enabled", True)}
    config = config_of(
        dataset__sources=sources,
        dataset__resolution=changes.pop("sides", [[128, 64]]),
        dataset__buckets=buckets,
        lora__target="attention",
        output__save_every_steps=0,
        **changes,
    )
    trained: list[Batch] = []
    inputs = recipe.batch_inputs

    def watched(ingredients: recipe.Ingredients, batch: Batch, index: int) -> Any:
        trained.append(batch)
        return inputs(ingredients, batch, index)

    monkeypatch.setattr(recipe, "batch_inputs", watched)
    run, planned = workspace.create_run(config), plan(config)
    train_here(run)

    info = run.read()
    assert info.step == info.max_steps == planned.max_steps == max(losses_of(run))
    assert info.epoch == int(planned.epochs)
    accumulation = config.train.gradient_accumulation_steps
    assert len(trained) == planned.max_steps * accumulation
    assert planned.batches_per_epoch == sum(bucket.batches for bucket in planned.buckets)
    # The first epoch, view by view
    first = trained[: planned.batches_per_epoch]
    sizes = [(batch.latents.shape[3] * 8, batch.latents.shape[2] * 8) for batch in first]
    views = Counter(size for size, batch in zip(sizes, first, strict=True) for _ in batch.captions)
    assert Counter(sizes) == {(each.width, each.height): each.batches for each in planned.buckets}
    assert views == {(each.width, each.height): each.views for each in planned.buckets}
    assert sum(views.values()) == planned.views_per_epoch
    # What happens when, and at which rate
    marks = {each.what: each.steps for each in planned.timeline.marks}
    assert [event["step"] for event in of_type(run, "validation")] == marks.get("validation", [])
    assert bool(planned.validation_pictures) == ("validation" in marks)
    assert [event["step"] for event in of_type(run, "checkpoint")] == marks["checkpoints"]
    rates = {event["step"]: event["lr"] for event in of_type(run, "metric")}
    assert rates == pytest.approx({step + 1: rate for step, rate in planned.timeline.learning_rate})
