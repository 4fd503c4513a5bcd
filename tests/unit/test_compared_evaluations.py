"""The evaluations of runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.config import Config
from trainer.evaluating.results import Evaluated, Evaluation, evaluation_of
from trainer.evaluating.settings import parse_evaluation
from trainer.runs.store import Run, Workspace
from ui.runs.compared_evaluations import NOT_MEASURED, compared, stamp_of


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [Workspace(tmp_path).create_run(Config(name=name)) for name in ("a", "b", "c")]


def evaluate(run: Run, checkpoints: list[dict[str, Any]], best: int | None, pictures: int = 4) -> None:
    found = Evaluation(
        key="k",
        settings=parse_evaluation({"pictures": pictures}),
        held_out=True,
        validated_pictures=3,
        best=best,
        checkpoints=[Evaluated(key="k", **each) for each in checkpoints],
    )
    evaluation_of(run.dir).dir.mkdir(exist_ok=True)
    evaluation_of(run.dir).write_summary(found)


def test_each_measure_is_told_at_its_best_step_never_of_the_base_model(runs: list[Run]) -> None:
    assert compared(runs) == {"rows": [], "note": ""}
    base = {"step": 0, "validation_loss": 0.01, "drift": 0.0, "image_similarity": 0.99}
    evaluate(
        runs[0],
        [
            base,
            {"step": 10, "validation_loss": 0.2, "drift": 0.01, "image_similarity": 0.5, "copies": 2},
            {"step": 20, "validation_loss": 0.1, "drift": 0.02, "image_similarity": 0.7, "copies": 1},
        ],
        20,
    )
    evaluate(runs[1], [base, {"step": 5, "validation_loss": 0.3}], None)
    told = compared(runs)
    assert told["note"] == ""
    assert {row["label"]: row["values"] for row in told["rows"]} == {
        "Best checkpoint": ["step 20", NOT_MEASURED, NOT_MEASURED],
        "Validation loss": ["0.1 at step 20", "0.3 at step 5", NOT_MEASURED],
        "Drift": ["1 % at step 10", NOT_MEASURED, NOT_MEASURED],
        "Like the pictures": ["0.7 at step 20", NOT_MEASURED, NOT_MEASURED],
        "Copies": ["1 at step 20", NOT_MEASURED, NOT_MEASURED],
    }


def test_numbers_that_were_measured_otherwise_are_told_as_such(runs: list[Run]) -> None:
    before = stamp_of(runs[0])
    evaluate(runs[0], [{"step": 5, "drift": 0.1}], None)
    evaluate(runs[1], [{"step": 5, "drift": 0.1}], None, pictures=5)
    assert "not measured in the same way" in compared(runs)["note"]
    assert stamp_of(runs[0]) != before == stamp_of(runs[2])
