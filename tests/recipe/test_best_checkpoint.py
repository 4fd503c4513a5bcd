"""Validation that decides: the best checkpoint, the early end, and both again after an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.tiny_runs import Watcher, losses_of, make_pictures, of_type, stop_at, train_here
from trainer.__main__ import main
from trainer.checkpoint_folders import MANIFEST, checkpoints, step_of
from trainer.errors import JobFailed
from trainer.files import read_json
from trainer.lora.file import read_lora
from trainer.runs.store import Run, Workspace

PATIENCE = 2


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("held-out"), count=2)


@pytest.fixture(scope="module")
def make_run(config_of, tmp_path_factory: pytest.TempPathFactory, held_out: Path) -> Callable[..., Run]:
    """Runs that learn far too fast, so that validation soon gets worse."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))

    def make(**changes: Any) -> Run:
        values = {
            "lora__target": "attention",
            "train__max_steps": 20,
            "train__learning_rate": 0.1,
            "train__lr_scheduler": "constant",
            "train__batch_size": 1,
            "validation__path": str(held_out),
            "validation__every_steps": 1,
            "validation__timesteps": 2,
            "validation__early_stop_patience": PATIENCE,
            "output__save_every_steps": 0,
            "output__keep_last": 1,
            "output__use_best": True,
        }
        return workspace.create_run(config_of(**{**values, **changes}))

    return make


@pytest.fixture(scope="module")
def plain(make_run) -> Run:
    """A run that nobody touched."""
    run = make_run()
    train_here(run)
    return run


@pytest.fixture
def copy(plain: Run, workspace: Workspace) -> Run:
    """The same, to go on with."""
    return Run(shutil.copytree(plain.dir, workspace.runs_dir / "copy"))


def validations(run: Run) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in of_type(run, "validation")}


def best_of(run: Run) -> int:
    """The lowest of the trained steps."""
    losses = {step: loss for step, loss in validations(run).items() if step > 0}
    return min(losses, key=lambda step: losses[step])


def saved_steps(run: Run) -> list[int]:
    return [step_of(checkpoint) for checkpoint in checkpoints(run.checkpoints_dir)]


def test_a_run_that_gets_no_better_ends_early_and_its_best_is_the_result(plain: Run) -> None:
    run = plain
    info, best = run.read(), best_of(run)
    assert info.state == "finished" and info.step == best + PATIENCE < 20
    assert list(validations(run)) == list(range(info.step + 1)), "once each"
    told = [event["message"] for event in of_type(run, "warning") if event["code"] == "validation.early_stop"]
    assert len(told) == 1 and f"step {info.step} of 20" in told[0] and f"step-{best:06d}" in told[0]

    assert saved_steps(run) == [best, info.step], "the best, beside the newest"
    saved = run.checkpoints_dir / f"step-{best:06d}"
    assert run.output_path.read_bytes() == (saved / "lora.safetensors").read_bytes()
    assert read_lora(run.output_path).metadata["ss_steps"] == str(best)
    assert read_json(saved / MANIFEST)["validation_loss"] == validations(run)[best]
    assert [event["step"] for event in of_type(run, "checkpoint") if event["best"]][-1] == best


def test_the_events_tell_bands_and_what_was_gained(make_run) -> None:
    run = make_run(train__max_steps=2, validation__early_stop_patience=None)
    train_here(run)
    first, *_, last = of_type(run, "validation")
    assert first["relative"] == 1 and last["relative"] == pytest.approx(last["loss"] / first["loss"])
    assert [(band["from"], band["to"]) for band in last["bands"]] == [(0, 500), (500, 1000)]
    assert last["loss"] == pytest.approx(sum(band["loss"] for band in last["bands"]) / 2)
    assert not first["best"]


def test_interrupted_at_any_moment_it_decides_alike(plain: Run, make_run) -> None:
    stopped, killed = make_run(), make_run()
    best = best_of(plain)
    stop_at(stopped, ("validation", best + 1))
    assert read_lora(stopped.output_path).metadata["ss_steps"] == str(best), "what a stopped run leaves, too"
    train_here(stopped)

    def die() -> None:
        raise RuntimeError("killed")

    for moment in (("validation", best), ("checkpoint", best), ("checkpoint", plain.read().step)):
        with pytest.raises(JobFailed):
            train_here(killed, Watcher({moment: die}))
    train_here(killed)
    for run in (stopped, killed):
        assert run.read().step == plain.read().step and run.read().state == "finished"
        assert validations(run) == validations(plain) and losses_of(run) == losses_of(plain)
        assert saved_steps(run) == saved_steps(plain)
        assert run.output_path.read_bytes() == plain.output_path.read_bytes()


@pytest.mark.parametrize("steps", [40, 20], ids=["longer", "as long as it was to be"])
def test_extended_it_is_patient_again(copy: Run, steps: int) -> None:
    ended = copy.read().step
    assert main(["resume", str(copy.dir), "--max-steps", str(steps), "--json"]) == 0
    assert copy.read().step == min(steps, max(ended, best_of(copy)) + PATIENCE) > ended
    assert read_lora(copy.output_path).metadata["ss_steps"] == str(best_of(copy))


def test_ended_again_without_use_best_the_result_is_the_last_one(copy: Run) -> None:
    """As after a kill while ending: nothing is trained or validated anew."""
    copy.config_path.write_text(copy.config_path.read_text().replace("use_best: true", "use_best: false"))
    before, steps = validations(copy), losses_of(copy)
    train_here(copy)
    assert (validations(copy), losses_of(copy)) == (before, steps)
    assert read_lora(copy.output_path).metadata["ss_steps"] == str(copy.read().step)
    assert saved_steps(copy) == [best_of(copy), copy.read().step], "patience keeps the best all the same"


def test_a_best_checkpoint_that_was_damaged_is_not_used(copy: Run) -> None:
    (copy.checkpoints_dir / f"step-{best_of(copy):06d}" / "lora.safetensors").write_bytes(b"")
    watcher = Watcher()
    train_here(copy, watcher)
    assert "checkpoint.best_lost" in [event.get("code") for event in watcher.events]
    assert read_lora(copy.output_path).metadata["ss_steps"] == str(copy.read().step)


def test_the_last_and_the_best_are_kept(make_run) -> None:
    run = make_run(
        train__max_steps=5,
        validation__early_stop_patience=None,
        output__use_best=False,
        output__keep_best=True,
        output__save_every_steps=1,
        output__keep_last=2,
    )
    train_here(run)
    assert saved_steps(run) == sorted({best_of(run), 4, 5})
