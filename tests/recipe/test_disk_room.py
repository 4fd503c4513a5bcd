"""A disk with too little room: refused before the first step, or told of once, with what takes the room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

import pytest

from tests.recipe.tiny_runs import QUICK_PROMPT, losses_of, of_type, stop_at, train_here
from trainer import disk_room
from trainer.checkpoint_folders import STATE, checkpoints
from trainer.errors import UserError
from trainer.estimates import checkpoint_bytes, lora_file_bytes
from trainer.files import size_bytes
from trainer.lora.file import read_lora
from trainer.plan_disk import LEFT_BYTES
from trainer.runs.store import Run, Workspace


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say how much is free on the disk: each time another number, the last one for ever."""

    def say(*numbers: int) -> None:
        answers: Iterator[int] = chain(numbers, repeat(numbers[-1]))
        monkeypatch.setattr(disk_room, "free_disk_bytes", lambda folder: next(answers))

    return say


def warnings_of(run: Run) -> list[tuple[str, int]]:
    return [(event["code"], event["step"]) for event in of_type(run, "warning")]


def test_a_disk_without_room_for_one_checkpoint_is_refused_before_the_first_step(
    tiny: Any, workspace: Workspace, free: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workspace.create_run(tiny())
    free(1000)
    with pytest.raises(UserError) as caught:
        train_here(run)
    [problem] = caught.value.problems
    info = run.read()
    assert (problem.code, info.state, info.exit_code, info.step) == ("disk.no_room", "failed", 2, 0)
    assert f"0.0 MB are free on the disk of {run.dir}" in problem.message and "then resume the run" in problem.hint
    assert " in runs" in problem.hint and losses_of(run) == {} and checkpoints(run.checkpoints_dir) == []
    monkeypatch.undo()
    train_here(run)
    assert run.read().state == "finished"


def test_too_little_room_for_all_is_told_once_and_training_goes_on(
    tiny: Any, workspace: Workspace, free: Callable[..., None]
) -> None:
    run = workspace.create_run(tiny())
    free(LEFT_BYTES)
    train_here(run)
    assert (run.read().state, warnings_of(run)) == ("finished", [("disk.too_little", 0)])
    told = of_type(run, "warning")[0]
    assert "The run is going to write about" in told["message"] and "lower output.keep_last" in told["hint"]
    assert "at the end saving waits for room" in told["hint"] and " in runs" in told["hint"]


def test_a_disk_that_fills_is_told_before_it_is_full(
    tiny: Any, workspace: Workspace, free: Callable[..., None]
) -> None:
    """Asked at the start and before the checkpoints of steps 2 and 4; others write to the disk, too."""
    run = workspace.create_run(tiny())
    free(10 * LEFT_BYTES, 5 * LEFT_BYTES, LEFT_BYTES)
    train_here(run)
    assert (run.read().state, warnings_of(run)) == ("finished", [("disk.low", 4)])
    told = of_type(run, "warning")[0]
    assert f"a checkpoint takes {size_bytes(run.checkpoints_dir / 'step-000002') / 1e6:.1f} MB" in told["message"]


def test_what_is_written_already_needs_no_more_room(tiny: Any, workspace: Workspace, free: Callable[..., None]) -> None:
    """A run that stopped at its second checkpoint of two needs room for one more, the LoRA and one preview."""
    samples = {"every_steps": 2, "at_start": False, "prompts": [QUICK_PROMPT]}
    run = workspace.create_run(tiny(output__keep_last=2, lora__rank=16, samples=samples))
    stop_at(run, ("metric", 4))
    written, one = size_bytes(run.checkpoints_dir), checkpoint_bytes(run.config(), weights_of(run))
    needed = LEFT_BYTES + 3 * one - written + lora_file_bytes(run.config(), weights_of(run)) + 64 * 64 * 2
    free(needed - 1)
    stop_at(run, ("metric", 5))
    assert warnings_of(run) == [("disk.too_little", 4)]
    free(10 * needed)
    train_here(run)
    assert len(warnings_of(run)) == 1


@pytest.mark.parametrize("ema", [None, 0.99])
def test_a_checkpoint_takes_what_was_estimated(ema: float | None, tiny: Any, workspace: Workspace) -> None:
    run = workspace.create_run(tiny(lora__rank=64, train__max_steps=1, train__ema=ema))
    train_here(run)
    weights, checkpoint = weights_of(run), run.checkpoints_dir / "step-000001"
    assert size_bytes(checkpoint) == pytest.approx(checkpoint_bytes(run.config(), weights), rel=0.1)
    assert run.output_path.stat().st_size == pytest.approx(lora_file_bytes(run.config(), weights), rel=0.1)
    assert (checkpoint / STATE).stat().st_size > 3 * 4 * weights, "weights and two averages"


def weights_of(run: Run) -> int:
    layers = read_lora(checkpoints(run.checkpoints_dir)[-1] / "lora.safetensors").layers.values()
    return sum(layer.up.numel() + layer.down.numel() for layer in layers)
