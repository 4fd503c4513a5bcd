"""What a step costs two processes that train together, beside two that know nothing of each other."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from diffusers import UNet2DConditionModel

from tests.recipe.several import all_end, start_several
from tests.recipe.tiny_runs import make_pictures
from tests.tiny_models import SD_UNET, tiny_model
from trainer import gradient_sum, recipe
from trainer.config import Config
from trainer.runs.store import Workspace

STEPS, WARM_UP_STEPS, REPEATS = 8, 3, 3
MOST_TIMES = 1.1
WIDE_UNET = {**SD_UNET, "block_out_channels": (320, 640), "layers_per_block": 2, "norm_num_groups": 32}
"""The first two levels of Stable Diffusion 1.5, as wide as there."""
APART, TOGETHER, SHARED_OUT = "apart", "together", "together, shared out"

Times = dict[str, float]


def note_times(folder: Path, number: int) -> None:
    """Pin this process to a core of its own, and have it write what each of its steps takes, in seconds.

    ``own`` is its own thread's, ``all`` that of all its threads: those of exchanges too. ``finish`` is what is left of
    the exchange when the backward pass is over, ``waited`` the time in which that does nothing.
    """
    number += int(os.environ["RANK"])
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    steps: list[Times] = []
    rest = {"finish": 0.0, "waited": 0.0}
    train_step, finish = recipe.train_step, gradient_sum.GradientSum.__call__

    def timed_finish(self: gradient_sum.GradientSum, loss: Any) -> None:
        begun, own = time.perf_counter(), time.thread_time()
        finish(self, loss)
        rest["finish"] = time.thread_time() - own
        rest["waited"] = time.perf_counter() - begun - rest["finish"]

    def timed_step(*arguments: Any) -> Any:
        begun, own, everything = time.perf_counter(), time.thread_time(), time.process_time()
        numbers = train_step(*arguments)
        took = {"own": time.thread_time() - own, "all": time.process_time() - everything}
        steps.append({**took, "wall": time.perf_counter() - begun, **rest})
        (folder / f"{number}.json").write_text(json.dumps(steps))
        return numbers

    gradient_sum.GradientSum.__call__ = timed_finish  # type: ignore[method-assign]
    recipe.train_step = timed_step


def measured(kind: str, config: Config, folder: Path) -> list[Times]:
    """The steps of two processes, without the first ones."""
    folder.mkdir()
    runs = 2 if kind == APART else 1
    processes = []
    for number in range(runs):
        run = Workspace(folder / f"workspace{number}").create_run(config)
        hook = partial(note_times, folder, number)
        processes += start_several(2 // runs, "resume", str(run.dir), first=hook)
    all_end(processes, seconds=900)
    assert [process.poll() for process in processes] == [0, 0]
    return [step for path in folder.glob("*.json") for step in json.loads(path.read_text())[WARM_UP_STEPS:]]


@pytest.mark.skipif("LORA_ATELIER_MEASURE" not in os.environ, reason="minutes of two cores: set LORA_ATELIER_MEASURE")
def test_a_step_of_two_processes_takes_what_a_step_of_one_does(
    config_of: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By turns, each process on a core of its own, with one picture. Processor time counts: cores may be wanted by
    others, and two that compute at once slow each other down, together or apart."""
    model = tiny_model("sd1", tmp_path / "model")
    UNet2DConditionModel(**WIDE_UNET).save_pretrained(model / "unet")
    pictures = make_pictures(tmp_path / "pictures", count=2, side=128)
    dataset = {"sources": [{"path": str(pictures)}], "resolution": 128, "buckets": {"min": 64, "step": 8}}
    settings = {"dataset": dataset, "train__max_steps": STEPS, "train__batch_size": 1, "lora": {"rank": 16}}
    settings["output"] = {"save_every_steps": 0}
    found: dict[str, list[Times]] = {kind: [] for kind in (APART, TOGETHER, SHARED_OUT)}
    for repeat in range(REPEATS):
        for kind, steps in found.items():
            config = config_of(model={"base": str(model), "share_out": kind == SHARED_OUT}, **settings)
            steps += measured(kind, config, tmp_path / f"{kind} {repeat}")
    medians = {
        kind: {name: statistics.median(step[name] for step in steps) for name in steps[0]}
        for kind, steps in found.items()
    }
    one = medians[APART]["all"]
    with capsys.disabled():
        for kind, each in medians.items():
            shares = {name: round(value / one, 3) for name, value in each.items()}
            sys.stdout.write(f"\n{kind}: {each['all']:.3f} s of processor time; as shares of a step apart: {shares}\n")
    assert medians[TOGETHER]["all"] < MOST_TIMES * one
