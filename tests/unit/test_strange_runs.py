"""Run folders that others made, or that are damaged: none hides the other runs, or leads out of its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.config import Config
from trainer.errors import UserError
from trainer.runs.store import Run, Workspace
from ui.run_html import head_line, run_list
from ui.run_list import RunListReader
from ui.run_view import RunReader


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def good(workspace: Workspace) -> Run:
    return workspace.create_run(Config(name="good"))


def strange(workspace: Workspace, **changes: Any) -> Run:
    """A run whose ``run.json`` says this; a value of bytes is put in as JSON text."""
    run = workspace.create_run(Config(name="strange"))
    values = {**json.loads(run.info_path.read_text()), **changes}
    parts = (
        f"{json.dumps(key)}: {value.decode() if isinstance(value, bytes) else json.dumps(value)}"
        for key, value in values.items()
    )
    run.info_path.write_text("{" + ", ".join(parts) + "}")
    return run


def listed(workspace: Workspace) -> list[str]:
    """Ids of the runs that the page lists; the list can be shown."""
    runs = RunListReader(workspace).read()
    assert run_list(runs, "")
    return [info.id for info in runs.infos]


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 10**400},
        {"step": -1},
        {"step": b"NaN"},
        {"max_steps": 10**400, "step": 1},
        {"max_steps": -7},
        {"epoch": 2**60},
        {"batches_per_epoch": -1},
        {"created": 1e300},
        {"created": b"NaN"},
        {"started": b"-Infinity"},
        {"ended": b"1e999"},
        {"pid": 10**30},
        {"pid": -5},
        {"pid": 1, "pid_mark": 10**300},
        {"processes": 0},
        {"extend_to": 1e300},
        {"first_step_s": b"Infinity"},
        {"name": "../../../secret"},
        {"name": "a\0b"},
        {"name": "x" * 1000},
        {"name": ""},
        {"of_later": b"NaN"},
        {"of_later": "\ud800"},
        {"of_later": b"[" * 5000 + b"]" * 5000},
    ],
    ids=lambda changes: " ".join(f"{key}={str(value)[:12]!r}" for key, value in changes.items()),
)
def test_what_is_out_of_bounds_is_broken_and_hides_no_other_run(
    changes: dict[str, Any], workspace: Workspace, good: Run
) -> None:
    run = strange(workspace, **{"state": "training", **changes})
    with pytest.raises(UserError) as caught:
        run.read()
    assert caught.value.problems[0].code == "run.unreadable"
    assert listed(workspace) == [good.id] and workspace.runs() == [good]


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 2**53, "max_steps": 1},
        {"created": 0},
        {"created": 253_402_300_799},
        {"error": "x" * 3_000_000},
        {"pid": 2**32, "state": "training"},
        {"pid": 1, "pid_started": 1.0, "state": "paused"},
        {"of_later": b"[" * 300 + b"]" * 300, "state": "training"},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_what_is_within_them_can_be_shown(changes: dict[str, Any], workspace: Workspace, good: Run) -> None:
    run = strange(workspace, **changes)
    assert sorted(listed(workspace)) == sorted([good.id, run.id])
    assert head_line(RunReader(run).view())


@pytest.mark.parametrize("id", ["../../elsewhere", "gone", ""])
def test_a_run_is_called_like_its_folder(id: str, workspace: Workspace) -> None:
    run = strange(workspace, id=id)
    assert run.read().id == run.id and listed(workspace) == [run.id]


def test_what_is_no_folder_hides_no_run(workspace: Workspace, good: Run) -> None:
    (workspace.runs_dir / "notes.txt").write_text("mine")
    (workspace.runs_dir / "circle").symlink_to("circle")
    (workspace.runs_dir / "taken").mkdir()
    (workspace.runs_dir / "taken" / "run.json").mkdir()
    assert listed(workspace) == [good.id] and workspace.runs() == [good]


def test_a_run_that_cannot_be_written_to_is_listed_as_it_is(workspace: Workspace, good: Run) -> None:
    run = strange(workspace, state="training", pid=2**22 + 1)  # no process has that number
    (run.dir / ".run.lock").mkdir()
    assert sorted(listed(workspace)) == sorted([good.id, run.id])
