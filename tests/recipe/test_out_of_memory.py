"""Memory that the system refuses while a run is under way: what is left out, what is told, and what is kept.

The system's own limit on data (setrlimit(2)) is set for the time of one call, a little above what the process holds.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import forked
from tests.recipe.tiny_runs import losses_of, make_pictures, of_type, train_here
from trainer.checkpoint_folders import checkpoints, is_valid
from trainer.config_io import save_config
from trainer.devices import give_back_memory
from trainer.runs.store import Run, Workspace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' limit on a process's data")
if sys.platform == "linux":
    import resource

SLACK_BYTES = 1 << 18
_BALLAST_BYTES = (1 << 20, 1 << 16, 1 << 13)
Short = tuple[str, str, int]
"""A module, a function in it, and at which of its calls the process is held short of memory."""


def hold_short(module: str, function: str, number: int) -> None:
    """Hold this process short of memory during one call of a function."""
    owner: Any = importlib.import_module(module)
    *inside, name = function.split(".")
    for each in inside:
        owner = getattr(owner, each)
    real, calls = getattr(owner, name), itertools.count(1)

    def limited(*arguments: Any, **options: Any) -> Any:
        if next(calls) != number:
            return real(*arguments, **options)
        give_back_memory(torch.device("cpu"))
        before = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (held_bytes() + SLACK_BYTES, before[1]))
        ballast = list(what_is_left())  # what was freed within the process could be had again
        del ballast[-SLACK_BYTES // _BALLAST_BYTES[-1] :]
        try:
            return real(*arguments, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)

    setattr(owner, name, limited)


def what_is_left() -> Iterator[bytearray]:
    """All memory that can be had, in pieces that become smaller."""
    for size in _BALLAST_BYTES:
        with suppress(MemoryError):
            while True:
                yield bytearray(size)


def held_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) * 1024


@pytest.fixture
def train_short(workspace: Workspace, tmp_path: Path) -> Callable[[Any, Short], tuple[int, Run, str]]:
    """Train in a process of its own that is held short: exit code, run and log."""

    def train(config: Any, short: Short) -> tuple[int, Run, str]:
        save_config(config, tmp_path / "config.yaml")
        run = Run(workspace.runs_dir / "one")
        places = [str(tmp_path / "config.yaml"), "--workspace", str(workspace.dir), "--run-dir", str(run.dir)]
        environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = forked.start("train", *places, "--json", first=partial(hold_short, *short), **environment)
        return command.wait(), run, command.communicate()[1]

    return train


@pytest.fixture
def large(tiny: Any, tmp_path: Path) -> Callable[..., Any]:
    """Configs of a tiny model with pictures that take it some memory."""
    folder = make_pictures(tmp_path / "pictures", 3, side=256)
    dataset = {"sources": [{"path": str(folder)}], "resolution": 256, "buckets": {"min": 256, "max": 256}}

    def make(**changes: Any) -> Any:
        return tiny(**{"dataset": dataset, "train__max_steps": 4, "train__batch_size": 2, **changes})

    return make


def warnings_of(run: Run) -> list[tuple[str, int]]:
    return [(event["code"], event["step"]) for event in of_type(run, "warning")]


def saved(run: Run) -> list[str]:
    return [path.name for path in checkpoints(run.checkpoints_dir) if is_valid(path)]


def test_a_step_that_does_not_fit_ends_the_run_with_all_that_was_learned(large: Any, train_short: Any) -> None:
    code, run, log = train_short(large(), ("trainer.recipe", "train_step", 4))
    info = run.read()
    assert (code, info.state, info.exit_code, info.step) == (1, "failed", 1, 3), log
    assert (
        "not enough memory for a training step" in (info.error or "") and of_type(run, "error")[0]["code"] == "memory"
    )
    assert saved(run) == ["step-000002", "step-000003"] and list(run.output_dir.iterdir()) == []
    train_here(run)  # there is memory again
    assert run.read().state == "finished" and sorted(losses_of(run)) == [1, 2, 3, 4]


def test_pictures_that_cannot_be_encoded_are_told_before_the_first_step(
    large: Any, train_short: Any, workspace: Workspace
) -> None:
    code, run, log = train_short(large(), ("diffusers", "AutoencoderKL.encode", 1))
    assert code == 2 and "encoding one picture of 256 x 256 needs more memory than is free" in log
    assert not run.dir.exists() and not list(workspace.cache_dir.rglob("*.safetensors"))


def test_a_validation_that_does_not_fit_is_left_out(large: Any, train_short: Any) -> None:
    config = large(validation={"split": 0.4, "every_steps": 2}, train__batch_size=1)
    code, run, log = train_short(config, ("trainer.upkeep", "Upkeep._measure_validation", 2))
    assert (code, run.read().state, warnings_of(run)) == (0, "finished", [("validation.memory", 2)]), log
    assert [event["step"] for event in of_type(run, "validation")] == [0, 4]
    assert saved(run) == ["step-000002", "step-000004"]


def test_a_checkpoint_that_does_not_fit_is_left_out(tiny: Any, train_short: Any) -> None:
    config = tiny(lora__rank=512, train__max_steps=4)
    code, run, log = train_short(config, ("trainer.upkeep", "Upkeep._save", 1))
    assert (code, run.read().state, warnings_of(run)) == (0, "finished", [("checkpoint.failed", 2)]), log
    assert "there is no memory for it" in of_type(run, "warning")[0]["message"]
    assert saved(run) == ["step-000004"] and [path.name for path in run.checkpoints_dir.iterdir()] == saved(run)


def test_a_preview_that_does_not_fit_is_tried_smaller(tiny: Any, train_short: Any) -> None:
    """Whether the smaller one can be drawn is oneDNN's to say, which may go on refusing; training goes on anyhow."""
    prompt = {"prompt": "a red circle", "steps": 1, "width": 384, "height": 256}
    config = tiny(train__max_steps=2, samples={"every_steps": 2, "at_start": False, "prompts": [prompt]})
    code, run, log = train_short(config, ("trainer.together", "draw_prompt", 1))
    assert (code, run.read().state) == (0, "finished") and run.output_path.is_file(), log
    assert warnings_of(run)[0] == ("preview.memory", 2)
    assert of_type(run, "warning")[0]["hint"] == "Drawn at 192 x 128 instead."
    assert len(of_type(run, "sample")) + warnings_of(run).count(("preview.failed", 2)) == 1
