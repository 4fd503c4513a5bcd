"""Runs that go on from a checkpoint of another one, and preview prompts that are changed on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.recipe.tiny_runs import Watcher, losses_of, of_type, train_here
from trainer.config import Config
from trainer.errors import StoppedOnRequest
from trainer.runs import actions, control, worker
from trainer.runs.store import Run, Workspace


def test_a_run_from_a_checkpoint_ends_as_the_one_it_was_taken_from(
    workspace: Workspace, config_of: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "ensure_worker", lambda *_: True)
    whole = workspace.create_run(config_of(lora__dropout=0.3, train__max_steps=5, output__save_every_steps=2))
    train_here(whole)
    before = whole.output_path.read_bytes()
    branch = actions.continue_from(whole, 2, 5)
    assert branch.read().state == "queued"
    train_here(branch)
    assert branch.read().state == "finished"
    assert losses_of(branch) == {step: loss for step, loss in losses_of(whole).items() if step > 2}
    assert branch.output_path.read_bytes() == before == whole.output_path.read_bytes()


def test_prompts_change_while_it_trains_and_a_resume_keeps_them(
    workspace: Workspace, config_of: Callable[..., Config]
) -> None:
    first = [{"prompt": "a red circle", "steps": 2}]
    samples = {"samples__prompts": first, "samples__every_steps": 2, "samples__at_start": False}
    run = workspace.create_run(config_of(train__max_steps=6, **samples))

    def other_prompts() -> None:
        actions.change_prompts(run, ["a blue square --s 2", "a cat --s 2"])
        control.ask(run.control_dir, "sample")

    def impossible() -> None:
        actions.change_prompts(run, ["too deep --cs 12"])
        control.ask(run.control_dir, "stop")

    watcher = Watcher({("metric", 3): other_prompts, ("metric", 5): impossible})
    with pytest.raises(StoppedOnRequest, match="stopped at step"):
        train_here(run, watcher)
    assert prompts_at(run, 2) == ["a red circle"]
    assert prompts_at(run, 3) == prompts_at(run, 4) == ["a blue square", "a cat"]
    assert [(event["step"], event["prompts"]) for event in of_type(run, "prompts")] == [(3, ["a blue square", "a cat"])]
    assert any("clip_skip" in event["message"] for event in of_type(run, "warning"))
    assert [prompt.prompt for prompt in run.config().samples.prompts] == ["a blue square", "a cat"]
    train_here(run)
    assert prompts_at(run, 6) == ["a blue square", "a cat"]


def test_prompts_given_while_paused_are_kept_when_it_is_stopped_there(
    workspace: Workspace, config_of: Callable[..., Config]
) -> None:
    run = workspace.create_run(config_of(train__max_steps=4))

    def while_paused() -> None:
        actions.rename(run, "renamed")
        actions.change_prompts(run, ["given in a pause"])
        control.ask(run.control_dir, "stop")

    pause = {("metric", 1): lambda: control.ask(run.control_dir, "pause"), ("paused", 1): while_paused}
    with pytest.raises(StoppedOnRequest, match="stopped at step 1"):
        train_here(run, Watcher(pause))
    assert [prompt.prompt for prompt in run.config().samples.prompts] == ["given in a pause"]
    assert run.config().name == "renamed"
    assert run.output_path.name == "renamed.safetensors" and run.output_path.is_file()


def prompts_at(run: Run, step: int) -> list[str]:
    return [event["prompt"] for event in of_type(run, "sample") if event["step"] == step]
