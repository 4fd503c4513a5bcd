"""A disk that is full, refuses or is slow while a run is under way: the run's state, what is told, and what is left."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.file_operations import CAN_WATCH, Answer, Fail, Operation, Watched
from tests.recipe.tiny_runs import QUICK_PROMPT, losses_of, of_type, quick_settings, states_of, train_here
from tests.tiny_models import tiny_model
from trainer.checkpoint_folders import checkpoints, is_valid
from trainer.config import Config
from trainer.config_io import save_config
from trainer.runs import control
from trainer.runs.store import Run, Workspace

pytestmark = pytest.mark.skipif(not CAN_WATCH, reason="needs Linux' answers to system calls")

STEPS = 4
FULL, READ_ONLY = Fail(errno.ENOSPC), Fail(errno.EROFS)


@pytest.fixture(scope="module")
def undisturbed(config_of: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a tiny model with checkpoints and previews at every second step, as it ends on a good disk."""
    folder = tmp_path_factory.mktemp("undisturbed")
    changes: dict[str, Any] = {
        **quick_settings(tiny_model("sd1", folder / "model"), STEPS),
        "samples": {"every_steps": 2, "at_start": False, "prompts": [QUICK_PROMPT]},
        "output": {"save_every_steps": 2, "precision": "float"},
    }
    run = Workspace(folder).create_run(config_of(**changes))
    train_here(run)
    return run


def on_disk(undisturbed: Run, folder: Path, answer: Callable[[Operation], Answer]) -> tuple[int, Run, str]:
    """The same run with a disk that answers so: its exit code, its folder, and its log."""
    save_config(undisturbed.config(), folder / "config.yaml")
    run = Run(folder / "workspace" / "runs" / "one")
    arguments = ("train", str(folder / "config.yaml"), "--workspace", str(run.workspace.dir), "--run-dir", str(run.dir))
    watched = Watched([run.workspace.dir], answer, *arguments)
    code = watched.wait()
    return code, run, watched.command.communicate()[1]


def warnings_of(run: Run) -> list[str]:
    return [event["code"] for event in of_type(run, "warning")]


def unfinished_in(run: Run) -> list[Path]:
    return [path for path in run.workspace.dir.rglob("*") if path.name.startswith(".") and "lock" not in path.name]


def test_a_disk_that_is_full_for_a_while_costs_a_checkpoint_and_a_preview(undisturbed: Run, tmp_path: Path) -> None:
    """Caches, the first checkpoint and preview, and events in between: there is no room for any of them."""
    refused: set[str] = set()

    def answer(operation: Operation) -> Answer:
        path = str(operation.path)
        early = ("/cache/latents/", ".unfinished-step-000002/state.pt", "samples/.step-000002")
        between = path.endswith(("events.jsonl", "train.log")) and bool(refused) and not later
        if operation.call == "write" and (between or any(name in path for name in early)):
            refused.add(operation.path.name)
            return FULL
        later.extend([path] if ".unfinished-step-000004" in path else [])
        return None

    later: list[str] = []
    code, run, log = on_disk(undisturbed, tmp_path, answer)
    assert (code, run.read().state, run.read().error) == (0, "finished", None), log
    assert {"state.pt", "events.jsonl", "train.log"} <= refused
    assert {"cache.unwritable", "checkpoint.failed", "preview.failed"} <= set(warnings_of(run))
    told = [event["message"] for event in of_type(run, "warning")]
    assert any("step 2 could not be written: No space left on device" in message for message in told)
    assert losses_of(run) == losses_of(undisturbed), "what found no room was written later"
    assert [path.name for path in checkpoints(run.checkpoints_dir)] == ["step-000004"]
    assert [path.name for path in run.samples_dir.iterdir()] == ["step-000004-p00-s42.png"]
    assert run.output_path.read_bytes() == undisturbed.output_path.read_bytes()
    assert unfinished_in(run) == []


@pytest.mark.parametrize("where", [".unfinished-step-000004/state.pt", "output/."])
def test_a_disk_that_is_full_at_the_end_is_waited_for(where: str, undisturbed: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "workspace" / "runs" / "one")
    paused: list[float] = []

    def answer(operation: Operation) -> Answer:
        if not paused and run.info_path.is_file() and run.read().state == "paused":
            paused.append(time.monotonic())
            assert run.read().step == STEPS
            control.ask(run.control_dir, "resume")  # its user has made room
        return FULL if not paused and operation.call == "write" and where in str(operation.path) else None

    code, _, log = on_disk(undisturbed, tmp_path, answer)
    assert (code, run.read().state, run.read().error) == (0, "finished", None), log
    assert paused and states_of(run) == ["starting", "preparing", "training", "paused", "training", "finished"]
    assert warnings_of(run) == ["disk.full"]
    assert f"up to step {STEPS} could not be saved" in of_type(run, "warning")[0]["message"]
    assert run.output_path.read_bytes() == undisturbed.output_path.read_bytes()
    assert [is_valid(path) for path in checkpoints(run.checkpoints_dir)] == [True, True]
    assert losses_of(run) == losses_of(undisturbed) and unfinished_in(run) == []


def test_a_folder_that_became_read_only(undisturbed: Run, tmp_path: Path) -> None:
    """The first checkpoint stays good; what comes after it cannot be kept, and that is said."""

    def answer(operation: Operation) -> Answer:
        kept = "step-000004" in str(operation.path) or "/output/" in str(operation.path)
        return READ_ONLY if kept and operation.call in ("openat", "write", "rename") else None

    code, run, log = on_disk(undisturbed, tmp_path, answer)
    info = run.read()
    assert (code, info.state, info.exit_code, info.step) == (1, "failed", 1, STEPS), log
    assert info.error is not None and "Read-only file system" in info.error and "resume the run" in info.error
    assert "Traceback" not in log
    assert [path.name for path in checkpoints(run.checkpoints_dir) if is_valid(path)] == ["step-000002"]
    assert [path.name for path in run.samples_dir.iterdir()] == ["step-000002-p00-s42.png"]
    assert losses_of(run) == losses_of(undisturbed) and unfinished_in(run) == []


def test_a_slow_disk_only_takes_longer(undisturbed: Run, tmp_path: Path) -> None:
    def answer(operation: Operation) -> Answer:
        time.sleep(0.05 if operation.call == "fsync" else 0)
        return None

    code, run, log = on_disk(undisturbed, tmp_path, answer)
    assert (code, run.read().state, warnings_of(run)) == (0, "finished", []), log
    assert run.output_path.read_bytes() == undisturbed.output_path.read_bytes()
