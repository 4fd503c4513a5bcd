"""Memory that the system refuses while a run is under way: what is left out, what is told, and what is kept.

The system's own limit on data (setrlimit(2)) is set for the time of one call, a little above what the process holds.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.recipe.tiny_runs import losses_of, make_pictures, of_type, train_here
from trainer import recipe, sampling
from trainer.checkpoint_folders import checkpoints, is_valid
from trainer.data import cache
from trainer.devices import give_back_memory
from trainer.errors import JobFailed, UserError
from trainer.runs.store import Run, Workspace
from trainer.upkeep import Upkeep

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' limit on a process's data")
if sys.platform == "linux":
    import resource

SLACK_BYTES = 1 << 18
MMAP_THRESHOLD = -3  # of mallopt(3): larger pieces are given back to the system at once, and count no more
Hold = Callable[[Any, str, int], None]


@pytest.fixture
def hold_short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    """Hold the process short of memory during the so-manieth call of a function of a module or class."""

    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_THRESHOLD, 1 << 15)

    def patch(owner: Any, name: str, number: int) -> None:
        real, calls = getattr(owner, name), 0

        def limited(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != number:
                return real(*arguments, **options)
            give_back_memory(torch.device("cpu"))
            before = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (held_bytes() + SLACK_BYTES, before[1]))
            try:
                return real(*arguments, **options)
            finally:
                resource.setrlimit(resource.RLIMIT_DATA, before)

        monkeypatch.setattr(owner, name, limited)

    yield patch
    libc.mallopt(MMAP_THRESHOLD, 1 << 25)


def held_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) * 1024


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


def test_a_step_that_does_not_fit_ends_the_run_with_all_that_was_learned(
    large: Any, workspace: Workspace, hold_short: Hold
) -> None:
    hold_short(recipe, "train_step", 4)
    run = workspace.create_run(large())
    with pytest.raises(JobFailed, match="not enough memory for a training step") as caught:
        train_here(run)
    info = run.read()
    assert (caught.value.problem.code, info.state, info.exit_code, info.step) == ("memory", "failed", 1, 3)
    assert saved(run) == ["step-000002", "step-000003"] and list(run.output_dir.iterdir()) == []
    train_here(run)  # there is memory again
    assert run.read().state == "finished" and sorted(losses_of(run)) == [1, 2, 3, 4]


def test_pictures_that_cannot_be_encoded_are_told_before_the_first_step(
    large: Any, workspace: Workspace, hold_short: Hold
) -> None:
    hold_short(cache, "encode_pixels", 1)
    run = workspace.create_run(large())
    with pytest.raises(UserError, match="encoding one picture of 256 x 256 needs more memory than is free"):
        train_here(run)
    assert (run.read().state, run.read().exit_code, losses_of(run)) == ("failed", 2, {})
    assert not list(workspace.cache_dir.rglob("*.safetensors"))


def test_a_validation_that_does_not_fit_is_left_out(large: Any, workspace: Workspace, hold_short: Hold) -> None:
    hold_short(Upkeep, "_measure_validation", 2)
    run = workspace.create_run(large(validation={"split": 0.4, "every_steps": 2}, train__batch_size=1))
    train_here(run)
    assert (run.read().state, warnings_of(run)) == ("finished", [("validation.memory", 2)])
    assert [event["step"] for event in of_type(run, "validation")] == [0, 4]
    assert saved(run) == ["step-000002", "step-000004"]


def test_a_checkpoint_that_does_not_fit_is_left_out(tiny: Any, workspace: Workspace, hold_short: Hold) -> None:
    hold_short(Upkeep, "_save", 1)
    run = workspace.create_run(tiny(lora__rank=512, train__max_steps=4))
    train_here(run)
    assert (run.read().state, warnings_of(run)) == ("finished", [("checkpoint.failed", 2)])
    assert "there is no memory for it" in of_type(run, "warning")[0]["message"]
    assert saved(run) == ["step-000004"] and [path.name for path in run.checkpoints_dir.iterdir()] == saved(run)


def test_a_preview_that_does_not_fit_is_drawn_smaller(tiny: Any, workspace: Workspace, hold_short: Hold) -> None:
    hold_short(sampling, "draw_prompt", 1)
    prompt = {"prompt": "a red circle", "steps": 1, "width": 384, "height": 256}
    samples = {"every_steps": 2, "at_start": False, "prompts": [prompt]}
    run = workspace.create_run(tiny(train__max_steps=2, samples=samples))
    train_here(run)
    assert (run.read().state, warnings_of(run)) == ("finished", [("preview.memory", 2)])
    with Image.open(run.dir / of_type(run, "sample")[0]["path"]) as picture:
        assert picture.size == (192, 128)
