"""A clock that jumps, numbers that are none, memory that is gone: the run's state, what is told, and what is left."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import torch

from tests.recipe.tiny_runs import Watcher, at_step, losses_of, of_type, train_here
from trainer import recipe
from trainer.checkpoint_folders import checkpoints, is_valid
from trainer.errors import JobFailed, UserError
from trainer.lora.file import read_lora
from trainer.runs.store import Run, Workspace, this_process


@pytest.fixture
def run(tiny: Any, workspace: Workspace) -> Run:
    return workspace.create_run(tiny())


def test_a_clock_that_jumps_changes_nothing(run: Run, tiny: Any, workspace: Workspace, monkeypatch: Any) -> None:
    undisturbed = workspace.create_run(tiny())
    train_here(undisturbed)
    system = psutil._psplatform  # what tells when the machine was started, by the clock as it is now
    real_time, real_boot, jumps = time.time, system.boot_time, itertools.cycle([3600.0, -3600.0, 0.0])
    monkeypatch.setattr(time, "time", lambda: real_time() + next(jumps))
    monkeypatch.setattr(system, "boot_time", lambda: real_boot() + next(jumps))
    states = []
    train_here(run, Watcher({("metric", 3): lambda: states.append(run.status().state)}))
    assert states == ["training"], "its process lives, whatever the clock says"
    assert run.read().state == "finished" and losses_of(run) == losses_of(undisturbed)
    assert run.output_path.read_bytes() == undisturbed.output_path.read_bytes()


def test_a_process_that_older_versions_wrote_down_is_known_by_its_start(run: Run) -> None:
    run.update(state="training", **{**this_process(), "pid_mark": None})
    assert run.status().state == "training"
    run.update(pid_started=1.0)
    assert run.status().state == "failed"


def test_one_step_without_a_number_is_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, steps = recipe.batch_losses, itertools.count(1)

    def losses(*arguments: Any) -> Iterator[torch.Tensor]:
        factor = math.nan if next(steps) == 3 else 1.0
        yield from (term * factor for term in real(*arguments))

    monkeypatch.setattr(recipe, "batch_losses", losses)
    train_here(run)
    assert (run.read().state, losses_of(run)[3]) == ("finished", "nan")
    [warning] = of_type(run, "warning")
    assert (warning["code"], warning["step"]) == ("training.not_finite", 3)
    assert [path.name for path in checkpoints(run.checkpoints_dir)] == ["step-000002", "step-000004", "step-000006"]
    assert all(torch.isfinite(layer.up).all() for layer in read_lora(run.output_path).layers.values())


def test_pictures_that_a_vae_has_no_numbers_for_end_the_run_before_it_begins(run: Run, monkeypatch: Any) -> None:
    real = recipe.load_family

    def load(*arguments: Any, **options: Any) -> Any:
        family = real(*arguments, **options)
        encode = family.encode_pixels
        monkeypatch.setattr(family, "encode_pixels", lambda pixels: encode(pixels) * math.nan)
        return family

    monkeypatch.setattr(recipe, "load_family", load)
    with pytest.raises(UserError, match=r"the VAE gives no numbers \(NaN\) for 0.png"):
        train_here(run)
    assert (run.read().state, run.read().exit_code) == ("failed", 2)
    assert not list(run.workspace.cache_dir.rglob("*.safetensors")), "nothing wrong is kept for the next run"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] DefaultCPUAllocator")],
    ids=["host", "gpu", "allocator"],
)
def test_memory_that_runs_out_on_the_way_loses_nothing(
    error: Exception, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(recipe, "batch_losses", at_step(4, fail))
    monkeypatch.setattr("trainer.late_numbers.steps_ahead", lambda device: 2)  # as on a GPU
    with pytest.raises(JobFailed) as caught:
        train_here(run)
    info = run.read()
    assert (caught.value.problem.code, info.state, info.exit_code) == ("memory", "failed", 1)
    assert "train.gradient_checkpointing" in (info.error or "")
    assert sorted(losses_of(run)) == [1, 2, 3], "the steps that were done are told"
    kept = [path.name for path in checkpoints(run.checkpoints_dir) if is_valid(path)]
    assert kept == ["step-000002", "step-000003"], "what was learned is saved"
    monkeypatch.undo()
    train_here(run)
    assert run.read().state == "finished" and sorted(losses_of(run)) == [1, 2, 3, 4, 5, 6]
