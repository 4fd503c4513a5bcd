"""A base model that two processes hold together: real ones, on the processor."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from tests.recipe.several import (
    all_end,
    numbers_of,
    start_several,
    train_several,
    wait_for_event,
    wait_for_state,
    weights_of,
)
from tests.recipe.test_resume import EVERYTHING_RANDOM
from tests.recipe.tiny_runs import of_type, train_here
from tests.tiny_models import tiny_model
from trainer import rank_group, together
from trainer.config import Config
from trainer.config_io import save_config
from trainer.runs import control
from trainer.runs.store import Run, Workspace

CLOSE = 1e-5
PROMPT = {"prompt": "a big red circle", "steps": 2, "width": 64, "height": 64}

ConfigOf = Callable[..., Config]


@pytest.fixture(scope="module")
def shared_of(tmp_path_factory: pytest.TempPathFactory, config_of: ConfigOf) -> ConfigOf:
    """Runs of a tiny model that is shared out; of three pictures one is left for a batch by itself."""
    folder = tmp_path_factory.mktemp("models")

    def make(kind: str, batch_size: int, share_out: bool = True, **changes: Any) -> Config:
        base = folder / kind
        if not base.is_dir():
            tiny_model(kind, base)
        given = {"train__max_steps": 2, **changes, "train__batch_size": batch_size}
        return config_of(model={"base": str(base), "share_out": share_out}, **given)

    return make


def previews(run: Run) -> list[Path]:
    return [run.dir / event["path"] for event in of_type(run, "sample")]


def assert_same(run: Run, other: Run) -> None:
    """That two runs have learned the same, validated the same and drawn the same, but for the last bit of a pixel."""
    for name in ("loss", "grad_norm"):
        assert numbers_of(run, name) == pytest.approx(numbers_of(other, name), abs=CLOSE)
    assert (weights_of(run.output_path) - weights_of(other.output_path)).abs().max() < CLOSE
    validations = [[event["loss"] for event in of_type(each, "validation")] for each in (run, other)]
    assert validations[0] == pytest.approx(validations[1], abs=CLOSE)
    assert [path.name for path in previews(run)] == [path.name for path in previews(other)]
    for one, two in zip(previews(run), previews(other), strict=True):
        with Image.open(one) as first, Image.open(two) as second:
            extremes = ImageChops.difference(first, second).getextrema()
        assert max(largest for _, largest in extremes) <= 1, one.name


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("sd1", EVERYTHING_RANDOM),
        (
            "sdxl",
            {
                "train__gradient_checkpointing": "all",
                "lora__type": "dora",
                "train__optimizer": "sgd",  # AdamW makes as much of a gradient that is rounding alone as of another
                "train__learning_rate": 0.1,
                "loss__preserve": {"class_word": "shape", "weight": 0.5},
                "output__trigger": "circle",
            },
        ),
    ],
)
def test_two_processes_that_hold_it_together_do_what_one_does(
    shared_of: ConfigOf, workspace: Workspace, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    """Batches of one and of two pictures, one of them without a picture for the second process; previews, validation,
    dropouts, running mean; recomputation, and weights that adapters read."""
    settings = {**settings, "samples": {"every_steps": 2, "at_start": False, "prompts": [PROMPT]}}
    alone = Workspace(tmp_path / "alone").create_run(shared_of(kind, 2, **settings))
    train_here(alone)
    assert [event["code"] for event in of_type(alone, "warning")] == ["model.nobody_to_share_with"]
    run = train_several(2, shared_of(kind, 1, **settings), workspace)
    assert len(previews(run)) == 1 and not of_type(run, "warning")
    assert_same(run, alone)


def test_stop_in_a_picture_pause_loss_and_going_on_alone(
    shared_of: ConfigOf, workspace: Workspace, tmp_path: Path
) -> None:
    steps, samples = 20, {"every_steps": 0, "at_start": True, "prompts": [{**PROMPT, "steps": 1000}]}
    long = {"train__max_steps": steps, "train__gradient_accumulation_steps": 1, "samples": samples}
    alone = Workspace(tmp_path / "alone").create_run(shared_of("sd1", 2, **{**long, "samples": {"at_start": False}}))
    train_here(alone)
    run = workspace.create_run(shared_of("sd1", 1, **long))

    processes = start_several(2, "resume", str(run.dir))
    wait_for_state(run, "training")
    control.ask(run.control_dir, "stop")
    all_end(processes, seconds=120)
    assert [process.poll() for process in processes] == [3, 0]
    assert (run.read().state, run.read().step, previews(run)) == ("stopped", 1, [])

    processes = start_several(2, "resume", str(run.dir))
    wait_for_event(run, "checkpoint", 3)
    control.ask(run.control_dir, "pause")
    wait_for_state(run, "paused")
    control.ask(run.control_dir, "resume")
    wait_for_event(run, "checkpoint", run.read().step + 3)
    killed = time.time()
    os.kill(processes[1].pid, signal.SIGKILL)
    all_end(processes, seconds=60)
    info = run.status()
    assert info.state == "failed" and info.ended is not None and info.ended - killed < 10
    assert info.error is not None and "Process 2 of 2 ended" in info.error

    save_config(shared_of("sd1", 2, share_out=False, **long), run.config_path)
    train_here(run)
    assert numbers_of(run, "loss") == pytest.approx(numbers_of(alone, "loss"), abs=CLOSE)
    assert (weights_of(run.output_path) - weights_of(alone.output_path)).abs().max() < CLOSE


def refuse_large_pictures(by: tuple[int, ...]) -> None:
    """Let the memory of some processes not suffice for pictures of more than 128 px, after a denoising step."""
    rank_group._MEETING_SECONDS = 1.0
    draw = together.draw_prompt

    def refuse(family: Any, config: Any, prompt: Any, size: tuple[int, int], on_step: Callable[[Any], None]) -> Any:
        def after_step(progress: Any) -> None:
            on_step(progress)
            if int(os.environ["RANK"]) in by and max(size) > 128:
                raise torch.OutOfMemoryError("CUDA out of memory")

        return draw(family, config, prompt, size, after_step)

    together.draw_prompt = refuse  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("short", "error"), [((0, 1), None), ((1,), "Process 2 of 2 ended"), ((0,), "that the others went on with")]
)
def test_a_picture_for_which_there_is_no_memory(
    shared_of: ConfigOf, workspace: Workspace, short: tuple[int, ...], error: str | None
) -> None:
    """It is drawn smaller where all find so; where one does in the middle of a pass, the run ends and does not wait."""
    prompts = [{**PROMPT, "width": 256, "height": 256}]
    samples = {"every_steps": 0, "at_start": True, "prompts": prompts}
    run = workspace.create_run(shared_of("sd1", 1, train__max_steps=2, samples=samples))
    processes = start_several(2, "resume", str(run.dir), first=partial(refuse_large_pictures, short))
    all_end(processes, seconds=120)
    info, drawn = run.status(), [Image.open(path).size for path in previews(run)]
    if error is None:
        assert info.state == "finished" and drawn == [(128, 128)]
    else:
        assert info.state == "failed" and error in str(info.error) and drawn == []
