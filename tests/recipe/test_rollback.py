"""Weights and gradients that are no numbers any more: where the run goes back to, and what is kept and told."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.recipe.tiny_runs import QUICK_PROMPT, Watcher, losses_of, of_type, states_of, train_here
from trainer import recipe
from trainer.checkpoint import load_state, save_checkpoint
from trainer.checkpoint_folders import LORA, MANIFEST, checkpoints, is_valid
from trainer.errors import JobFailed, StoppedOnRequest, UserError
from trainer.lora.file import read_lora
from trainer.parameter_groups import ParameterGroup
from trainer.runs import control
from trainer.runs.store import Run, Workspace

STEADY = {"train__lr_scheduler": "constant", "train__learning_rate": 1e-3}


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make a weight of the latest training NaN."""
    groups: list[ParameterGroup] = []
    real = recipe.parameter_groups

    def kept(*arguments: Any) -> list[ParameterGroup]:
        groups[:] = real(*arguments)
        return groups

    def spoil() -> None:
        with torch.no_grad():
            groups[0].parameters[0][0, 0] = math.nan

    monkeypatch.setattr(recipe, "parameter_groups", kept)
    return spoil


def names(run: Run) -> list[str]:
    return [path.name for path in checkpoints(run.checkpoints_dir) if is_valid(path)]


def weights(path: Path) -> dict[str, Tensor]:
    return {name: layer.up @ layer.down for name, layer in read_lora(path).layers.items() if layer.up.ndim == 2}


def all_finite(run: Run) -> bool:
    files = [*run.checkpoints_dir.rglob(LORA), *run.output_dir.iterdir()]
    return all(bool(value.isfinite().all()) for path in files for value in weights(path).values())


def warnings_of(run: Run) -> list[tuple[str, int]]:
    return [(event["code"], event["step"]) for event in of_type(run, "warning")]


@pytest.mark.parametrize("step", [4, 6], ids=["where a checkpoint is due", "after the last step"])
def test_weights_that_are_no_numbers_are_not_kept(step: int, tiny: Any, workspace: Workspace, poison: Any) -> None:
    """The steps since the checkpoint before are those of a run that goes on from there at half of the rate."""
    run = workspace.create_run(tiny(**STEADY))
    train_here(run, Watcher({("metric", step): poison}))
    info = run.read()
    assert (info.state, info.step, info.rollbacks, info.error) == ("finished", 6, 1, None)
    assert names(run) == ["step-000002", "step-000004", "step-000006"] and all_finite(run)
    assert warnings_of(run) == [("training.rolled_back", step)]
    message = of_type(run, "warning")[0]["message"]
    assert f"After step {step} the weights are not finite" in message and f"step-{step - 2:06d}" in message
    assert [event["step"] for event in of_type(run, "metric")] == [*range(1, step + 1), *range(step - 1, 7)]
    assert states_of(run)[-3:] == ["training", "training", "finished"]
    slower = tiny(**(STEADY | {"train__learning_rate": 5e-4}))
    expected = workspace.create_run(slower, checkpoint=run.checkpoints_dir / f"step-{step - 2:06d}")
    train_here(expected)
    again = {event["step"]: event["loss"] for event in of_type(run, "metric")[step:]}
    assert again == losses_of(expected)
    found, wanted = weights(run.output_path), weights(expected.output_path)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_run_that_ends_just_when_it_went_back_goes_on_as_it_would_have(
    tiny: Any, workspace: Workspace, poison: Any
) -> None:
    def end() -> None:
        raise KeyboardInterrupt

    undisturbed, ended = workspace.create_run(tiny()), workspace.create_run(tiny())
    train_here(undisturbed, Watcher({("metric", 5): poison}))
    with pytest.raises(KeyboardInterrupt):
        train_here(ended, Watcher({("metric", 5): poison, ("training", 4): end}))
    assert (ended.read().state, ended.read().rollbacks, names(ended)[-1]) == ("stopped", 1, "step-000004")
    train_here(ended)
    assert ended.output_path.read_bytes() == undisturbed.output_path.read_bytes()
    assert warnings_of(ended) == [("training.not_finite", 6), ("training.rolled_back", 6)]


def test_a_stop_that_comes_with_bad_numbers_saves_those_of_the_checkpoint(
    tiny: Any, workspace: Workspace, poison: Any
) -> None:
    run = workspace.create_run(tiny())

    def spoil_and_stop() -> None:
        poison()
        control.ask(run.control_dir, "stop")

    with pytest.raises(StoppedOnRequest):
        train_here(run, Watcher({("metric", 3): spoil_and_stop}))
    assert (run.read().state, run.read().step, names(run)) == ("stopped", 2, ["step-000002"])
    assert run.output_path.is_file() and all_finite(run)


def test_it_goes_back_twice_and_then_ends(tiny: Any, workspace: Workspace, poison: Any) -> None:
    """However often it is resumed; a new run from its checkpoint begins to count anew."""

    class AtEveryThirdStep(Watcher):
        def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
            super().emit(kind, step, **fields)
            if (kind, step) == ("metric", 3):
                poison()

    run = workspace.create_run(tiny(**STEADY))
    for _ in range(2):
        with pytest.raises(JobFailed) as caught:
            train_here(run, AtEveryThirdStep())
        info, told = run.read(), str(caught.value)
        assert (info.state, info.exit_code, info.rollbacks) == ("failed", 1, 2)
        assert caught.value.problem.code == "training.diverged" and info.error == told
        for words in ("After step 4 the weights", "went back 2 times", "step-000002", "Lower train.learning_rate"):
            assert words in told
        assert names(run) == ["step-000002"] and list(run.output_dir.iterdir()) == []
    rates = [event["lr"] for event in of_type(run, "metric") if event["step"] == 3]
    assert rates == [1e-3, 5e-4, 2.5e-4, 2.5e-4]
    new = workspace.create_run(run.config(), checkpoint=run.checkpoints_dir / "step-000002")
    train_here(new)
    assert (new.read().state, new.read().rollbacks) == ("finished", 0)


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tiny: Any, workspace: Workspace, poison: Any) -> None:
    run = workspace.create_run(tiny(output__save_every_steps=4))
    with pytest.raises(JobFailed, match=r"the weights are not finite any more. Nothing had been saved yet"):
        train_here(run, Watcher({("metric", 3): poison}))
    assert (run.read().state, run.read().rollbacks, names(run)) == ("failed", 0, [])
    assert list(run.output_dir.iterdir()) == []


def test_a_gradient_that_stays_without_a_number_goes_back_too(
    tiny: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model that overflows: the weights are sound, and twelve steps in a row learned nothing."""
    real, calls = recipe.batch_losses, itertools.count(1)

    def losses(*arguments: Any) -> Iterator[Tensor]:
        factor = math.nan if 3 <= next(calls) < 15 else 1.0
        yield from (term * factor for term in real(*arguments))

    monkeypatch.setattr(recipe, "batch_losses", losses)
    run = workspace.create_run(tiny(train__max_steps=20))
    train_here(run)
    assert warnings_of(run) == [("training.not_finite", 3), ("training.rolled_back", 14)]
    assert "for 12 steps in a row, up to step 14" in of_type(run, "warning")[1]["message"]
    assert (run.read().state, run.read().rollbacks) == ("finished", 1)
    assert [event["step"] for event in of_type(run, "metric")] == [*range(1, 15), *range(3, 21)]
    assert all(isinstance(event["loss"], float) for event in of_type(run, "metric")[14:])


def test_previews_of_what_is_taken_back_are_drawn_anew(tiny: Any, workspace: Workspace, poison: Any) -> None:
    samples = {"every_steps": 1, "at_start": False, "prompts": [QUICK_PROMPT]}
    run = workspace.create_run(tiny(train__max_steps=4, samples=samples, **STEADY))
    first: list[bytes] = []
    preview = run.samples_dir / "step-000003-p00-s42.png"

    def spoil() -> None:
        first.append(preview.read_bytes())
        poison()

    train_here(run, Watcher({("sample", 3): spoil}))
    assert [event["step"] for event in of_type(run, "sample")] == [1, 2, 3, 3, 4]
    assert preview.read_bytes() != first[0], "at half of the rate it shows another model"


def test_a_checkpoint_without_numbers_is_not_gone_on_from(tiny: Any, workspace: Workspace) -> None:
    """Version 0.1 kept such."""
    run = workspace.create_run(tiny(train__max_steps=2))
    train_here(run)
    checkpoint = run.checkpoints_dir / "step-000002"
    state, lora = load_state(checkpoint), (checkpoint / LORA).read_bytes()
    state["parameters"][0][0, 0] = math.nan
    (checkpoint / MANIFEST).unlink()
    save_checkpoint(run.checkpoints_dir, 2, state, lambda path: bool(path.write_bytes(lora)))
    run.update(state="stopped", extend_to=4)
    with pytest.raises(UserError, match=r"In step-000002 the weights are not finite. Remove its folder"):
        train_here(run)
    assert run.read().state == "failed"
