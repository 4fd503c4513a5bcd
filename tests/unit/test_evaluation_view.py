"""What the evaluation panel is sent: of results, and of jobs in every state."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trainer.config import Config
from trainer.errors import UserError
from trainer.evaluating.results import Drawn, Evaluated, Evaluation, Nearest, evaluation_of
from trainer.evaluating.settings import METRICS, parse_evaluation
from trainer.files import write_json
from trainer.jobs import Job, JobState
from trainer.processes import started_at
from trainer.runs.events import EventLog
from trainer.runs.settings import read_settings
from trainer.runs.store import Run, Workspace
from ui.context import AppContext
from ui.evaluation_view import METRIC_WORDS, EvaluationReader
from ui.run_view import Checkpoint
from ui.runs import evaluation


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Workspace(tmp_path / "workspace").create_run(Config(name="a run"))


def evaluated(run: Run) -> Evaluation:
    near = Nearest(picture="train-1.png", source="/private/cats/a <b>.png", similarity=0.99, copied=True)
    drawn = [Drawn(picture="step-000100-p00-s42.png", prompt="<i>", seed=42, nearest=near)]
    rows = [
        Evaluated(step=0, key="k", validation_loss=0.5),
        Evaluated(step=100, key="k", validation_loss=0.4, drawn=drawn),
    ]
    found = Evaluation(
        key="k",
        settings=parse_evaluation({"pictures": 7}),
        held_out=True,
        validated_pictures=3,
        checkpoints=rows,
        best=100,
    )
    evaluation_of(run.dir).dir.mkdir()
    evaluation_of(run.dir).write_summary(found)
    return found


def job_of(run: Run, state: JobState | None) -> Job:
    """A job folder as the page makes it; without a state it runs, in this very process."""
    job = Job(run.workspace.jobs_dir / "20260101-000000-evaluate-abcdef")
    job.dir.mkdir(parents=True)
    write_json(job.dir / "job.json", {"title": "x", "command": ["evaluate", str(run.dir)], "started": 1.0})
    events = EventLog(job.events_path)
    events.emit("progress", what="evaluating", done=2, total=8)
    events.emit("warning", code="c", message="careful")
    events.close()
    if state is None:
        write_json(job.dir / "process.json", {"pid": os.getpid(), "pid_started": started_at(os.getpid())})
    else:
        problem = {"code": "c", "message": "No.", "hint": "Do this.", "field": ""}
        job.finish(state, error=[problem] if state == "failed" else None)
    return job


def test_a_run_that_was_never_evaluated_offers_its_checkpoints(run: Run) -> None:
    shown = EvaluationReader(run.workspace).shown(run, [Checkpoint(200, 1), Checkpoint(100, 1)])
    metrics = shown.pop("metrics")
    assert shown == {
        "run": run.id,
        "steps": [100, 200],
        "costs": None,
        "model": "",
        "pictures": 4,
        "job": None,
        "result": None,
    }
    assert [each["name"] for each in metrics] == [*METRIC_WORDS] and set(METRIC_WORDS) == set(METRICS)
    assert [each["name"] for each in metrics if each["on"]] == ["validation", "drift", "nearest"]


def test_results_are_told_with_what_is_still_there_and_without_paths(run: Run) -> None:
    evaluated(run)
    shown = EvaluationReader(run.workspace).shown(run, [Checkpoint(200, 1)])
    result: dict[str, Any] = shown["result"]
    assert shown["pictures"] == 7 and result["validated"] == "3 held-out pictures"
    assert [column["name"] for column in result["columns"]] == ["validation_loss"]
    base, row = result["rows"]
    assert (base["title"], base["base"], row["title"], row["kept"], row["best"]) == (
        "Base model",
        True,
        "Step 100",
        False,
        True,
    )
    (drawn,) = row["drawn"]
    assert drawn["url"].startswith(f"/atelier/runs/{run.id}/evaluation/step-000100-p00-s42.png?v=")
    assert drawn["nearest"]["name"] == "a <b>.png" and drawn["nearest"]["copied"] and "private" not in repr(shown)


@pytest.mark.parametrize("state", [None, "finished", "stopped", "failed"])
def test_the_job_is_told_in_every_state(run: Run, state: JobState | None) -> None:
    job_of(run, state)
    reader = EvaluationReader(run.workspace)
    told = reader.shown(run, [])["job"]
    assert told["state"] == (state or "running") and (told["done"], told["total"]) == (2, 8)
    assert told["warnings"] == ["careful"] and told["problems"] == (["No. Do this."] if state == "failed" else [])
    assert reader.look(run).running == (state is None)
    assert reader.look(run) == reader.look(run), "a page that shows it is left alone"


def test_what_is_asked_is_checked_before_a_job_starts(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[str]] = []
    monkeypatch.setattr(evaluation, "start_job", lambda workspace, command, title: orders.append(command))
    context, reader = AppContext(run.workspace), EvaluationReader(run.workspace)
    for step in (100, 200):
        (run.checkpoints_dir / f"step-{step:06d}").mkdir()
    asked = {"run": run.id, "model": "", "pictures": 2, "metrics": ["drift"], "steps": [100, 200]}
    for wrong, message in (
        ({"run": "../x"}, "no run"),
        ({"pictures": "many"}, "pictures"),
        ({"model": str(tmp_path)}, "not open to the page"),
        ({"metrics": []}, "metrics"),
        ({"metrics": ["--model=x"]}, "metrics"),
        ({"metrics": ["similarity"]}, "similarity needs a model"),
        ({"steps": []}, "No checkpoint is chosen"),
        ({"steps": ["100", 7]}, "No checkpoint is chosen"),
    ):
        with pytest.raises(UserError, match=message):
            evaluation.start(context, reader, {**asked, **wrong})
    assert orders == []
    evaluation.start(context, reader, {**asked, "model": " owner/clip "})
    assert orders == [["evaluate", str(run.dir), "--pictures=2", "--model=owner/clip", "--metrics", "drift"]]
    evaluation.start(context, reader, {**asked, "model": "owner/clip", "steps": [200], "metrics": ["drift", "nearest"]})
    assert orders[1][3:] == ["--model=owner/clip", "--checkpoint=200", "--metrics", "drift", "nearest"]
    assert read_settings(run.workspace).looking_model == "owner/clip"
    job = job_of(run, None)
    with pytest.raises(UserError, match="being evaluated already"):
        evaluation.start(context, reader, asked)
    with pytest.raises(UserError):
        evaluation.cancel(context, "../../x")
    write_json(job.dir / "job.json", {"title": "x", "command": ["merge"], "started": 1.0})
    with pytest.raises(UserError, match="no evaluation"):
        evaluation.cancel(context, job.id)
