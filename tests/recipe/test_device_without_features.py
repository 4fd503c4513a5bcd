"""A run on a device that can do nothing but compute: each thing it lacks is done another way, and trains the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch

from tests.recipe.tiny_runs import QUICK_PROMPT, losses_of, of_type, stop_at, train_here
from trainer import recipe
from trainer.accelerators import FEATURES, Features
from trainer.config import Config
from trainer.errors import UserError
from trainer.learning import Learning
from trainer.lora.file import read_lora
from trainer.runs.store import Run, Workspace

NOTHING = Features("lame GPU")
"""Beside the host, and without a single feature; in truth it is the processor."""
STEPS = 4


@pytest.fixture
def config(tiny: Callable[..., Config]) -> Callable[..., Config]:
    def make(**changes: Any) -> Config:
        asked = {
            "train__max_steps": STEPS,
            "train__ema": 0.9,
            "validation__split": 0.34,
            "validation__every_steps": 4,
            "validation__timesteps": 2,
            "samples__every_steps": 4,
            "samples__prompts": [{**QUICK_PROMPT, "sampler": "dpm2", "schedule": "karras"}],
        }
        return tiny(**{**asked, **changes})

    return make


def trained(config: Config, workspace: Workspace, name: str) -> Run:
    run = workspace.create_run(config, workspace.dir / name)
    train_here(run)
    return run


def warnings_of(run: Run) -> list[str]:
    return [event["code"] for event in of_type(run, "warning") if event["code"].startswith("device.")]


def validations_of(run: Run) -> list[float]:
    return [event["loss"] for event in of_type(run, "validation")]


def formats_of_timesteps(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """Filled with what the denoiser is given, in training and previews."""
    found: set[torch.dtype] = set()
    load = recipe.load_family

    def watched(*arguments: Any, **named: Any) -> Any:
        family = load(*arguments, **named)
        predict = family.predict

        def predicted(noisy: torch.Tensor, timesteps: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
            found.add(timesteps.dtype)
            return predict(noisy, timesteps, *others, **more)

        monkeypatch.setattr(family, "predict", predicted)
        return family

    monkeypatch.setattr(recipe, "load_family", watched)
    return found


def test_it_lacks_everything() -> None:
    lacks = [each.name for each in fields(Features) if each.name not in ("name", "beside_host")]
    assert NOTHING.beside_host and not any(getattr(NOTHING, name) for name in lacks) and len(lacks) > 10


def test_it_trains_as_the_processor_does(
    config: Callable[..., Config], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = trained(config(), workspace, "usual")
    timesteps = formats_of_timesteps(monkeypatch)
    told: list[torch.dtype] = []
    advance = Learning.advance

    def watched(learning: Learning) -> torch.Tensor:
        told.append((found := advance(learning)).dtype)
        assert not learning.decides_on_device, "no fused optimizer leaves a step out by itself"
        return found

    monkeypatch.setattr(Learning, "advance", watched)
    monkeypatch.setitem(FEATURES, "cpu", NOTHING)
    asked = {"model": {**config().model.model_dump(), "offload": 0.5}, "train__optimizer_args": {"fused": True}}
    run = trained(config(**asked), workspace, "lacking")

    assert warnings_of(run) == ["device.offload", "device.fused"] and not warnings_of(usual)
    assert told == [torch.float32] * STEPS
    assert timesteps == {torch.int64, torch.float32}, "DPM2 with Karras' noise levels has them in float64"
    called = [event["what"] for event in of_type(run, "progress") if "not replayed" in event["what"]]
    assert called == ["steps are called, not replayed: PyTorch captures no graphs for the lame GPU"]
    assert list(losses_of(run)) == [*range(1, STEPS + 1)]
    assert list(losses_of(run).values()) == pytest.approx(list(losses_of(usual).values()), rel=1e-5)
    assert len(validations_of(run)) == 2
    assert validations_of(run) == pytest.approx(validations_of(usual), rel=1e-5)
    assert all("vram_bytes" not in event and event["step_ms"] > 0 for event in of_type(run, "metric"))
    assert [event["step"] for event in of_type(run, "sample")] == [event["step"] for event in of_type(usual, "sample")]
    ours, theirs = (read_lora(each.output_path).layers for each in (run, usual))
    assert ours.keys() == theirs.keys()
    for name, layer in ours.items():
        torch.testing.assert_close(layer.delta(torch.float32), theirs[name].delta(torch.float32), rtol=1e-3, atol=1e-6)


def test_a_stopped_run_goes_on_there_with_the_same_bytes(
    config: Callable[..., Config], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FEATURES, "cpu", NOTHING)
    quick = {"samples__every_steps": 0, "validation__split": 0.0}
    through = trained(config(**quick), workspace, "through")
    stopped = workspace.create_run(config(**quick), workspace.dir / "stopped")
    stop_at(stopped, ("metric", 2))
    train_here(stopped)
    assert losses_of(stopped) == losses_of(through)
    assert stopped.output_path.read_bytes() == through.output_path.read_bytes()


def test_what_it_cannot_do_is_told_before_anything_is_loaded(
    config: Callable[..., Config], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FEATURES, "cpu", NOTHING)
    model = {**config().model.model_dump(), "quantize": "fp8", "base": "/nowhere"}
    run = workspace.create_run(config(model=model, train__mixed_precision="fp16", train__deterministic=True))
    with pytest.raises(UserError) as caught:
        train_here(run)
    told = [problem.field for problem in caught.value.problems]
    assert told == ["train.mixed_precision", "model.quantize", "train.deterministic"]
    assert run.read().state == "failed" and run.read().exit_code == 2
