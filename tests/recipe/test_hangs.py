"""A picture that cannot be read to its end, as on a disk that is gone: what the run tells, how it ends or goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.recipe.tiny_runs import losses_of, make_pictures, of_type, train_here
from trainer import session, watchdog
from trainer.checkpoint_folders import checkpoints, is_valid
from trainer.config_io import save_config
from trainer.runs.store import Run, Workspace

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")

DEADLINE_SECONDS = 120.0


def impatient(end_after_seconds: float | None) -> None:
    """Seconds in place of minutes, and what the settings say of an end."""
    watchdog.TICK_SECONDS, watchdog.STEADY_SECONDS, watchdog.TIMES_THE_USUAL = 0.1, 2.0, 4
    made = watchdog.Watchdog
    session.Watchdog = lambda log_path, **_: made(log_path, end_after_seconds)  # type: ignore[misc, assignment]


def wait_for(moment: Callable[[], bool], command: forked.Command) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not moment():
        assert command.poll() is None, command.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def hanging(tiny: Any, workspace: Workspace, tmp_path: Path) -> Callable[[float | None], tuple[forked.Command, Run]]:
    """A training in a process of its own whose picture has become a pipe that nobody writes to."""

    def start(end_after_seconds: float | None) -> tuple[forked.Command, Run]:
        folder = make_pictures(tmp_path / "pictures", 1)
        dataset = {"sources": [{"path": str(folder)}], "resolution": 64, "cache": {"latents": False}}
        save_config(tiny(dataset=dataset, train__max_steps=2000), tmp_path / "config.yaml")
        run = Run(workspace.runs_dir / "one")
        arguments = ["train", str(tmp_path / "config.yaml"), "--workspace", str(workspace.dir)]
        first = partial(impatient, end_after_seconds)
        environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = forked.start(*arguments, "--run-dir", str(run.dir), "--json", first=first, **environment)
        wait_for(lambda: run.events_path.is_file() and max(losses_of(run), default=0) >= 2, command)
        (folder / "0.png").rename(folder / "kept")
        os.mkfifo(folder / "0.png")
        return command, run

    return start


def codes(run: Run) -> list[str]:
    return [event["code"] for event in of_type(run, "warning")]


def test_a_run_that_hangs_says_where_and_goes_on_when_it_can(hanging: Any, tmp_path: Path) -> None:
    command, run = hanging(None)
    wait_for(lambda: "run.hangs" in codes(run), command)
    [warning] = of_type(run, "warning")
    assert "Nothing has been done for" in warning["message"] and "training_set.py" in warning["message"]
    assert "end its process and resume" in warning["hint"] and run.status().state == "training"
    log = run.log_path.read_text(encoding="utf-8")
    assert "The run hangs. Its threads:" in log and "in read_bytes" in log and "in train_step" in log
    pictures = tmp_path / "pictures"
    with (pictures / "0.png").open("wb") as pipe:  # the disk is there again
        (pictures / "kept").replace(pictures / "0.png")
        pipe.write((pictures / "0.png").read_bytes())
    wait_for(lambda: codes(run) == ["run.hangs", "run.goes_on"], command)
    (run.control_dir / "stop").touch()
    assert command.wait() == 3 and run.read().state == "stopped"


def test_a_run_that_hangs_for_too_long_fails_and_can_be_resumed(hanging: Any, tmp_path: Path) -> None:
    command, run = hanging(1.0)
    assert command.wait() == 1, command.communicate()
    info = run.read()
    assert (info.state, info.exit_code, info.pid) == ("failed", 1, None)
    assert "the run hangs in training_set.py" in (info.error or "") and "Resume goes on" in (info.error or "")
    assert codes(run) == ["run.hangs"] and of_type(run, "error")[0]["code"] == "run.hung"
    saved = checkpoints(run.checkpoints_dir)
    assert saved and all(map(is_valid, saved)) and list(run.output_dir.iterdir()) == []
    (tmp_path / "pictures" / "kept").replace(tmp_path / "pictures" / "0.png")
    config = run.config()
    config.train.max_steps = info.step + 2
    save_config(config, run.config_path)
    train_here(run)
    assert run.read().state == "finished" and run.output_path.is_file()
