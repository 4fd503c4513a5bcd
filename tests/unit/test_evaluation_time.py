"""About how long an evaluation takes: from one that was made, else from the run's steps, else nothing is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from trainer.config_io import parse_config
from trainer.evaluating.results import Evaluated, Evaluation
from trainer.evaluating.settings import parse_evaluation
from trainer.runs.store import Run, Workspace
from ui.runs.evaluation_time import costs


@pytest.fixture
def run(tmp_path: Path) -> Run:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(10):
        Image.new("RGB", (8, 8)).save(pictures / f"{number}.png")
    settings = {
        "dataset": {"sources": [{"path": str(pictures)}]},
        "train": {"batch_size": 2},
        "validation": {"split": 0.4, "timesteps": 5},
        "samples": {"prompts": ["a --s 3"]},
    }
    return Workspace(tmp_path / "workspace").create_run(parse_config(settings))


def test_it_is_told_once_the_run_has_a_speed(run: Run) -> None:
    assert costs(run, None) is None
    steps = [{"type": "metric", "step": step, "time": 0.6 * step} for step in range(1, 10)]
    run.events_path.write_text("".join(json.dumps(step) + "\n" for step in steps))
    found = costs(run, None)
    assert found is not None
    assert found["validation"] == pytest.approx(4 * 5 * 0.1), "0.6 s for 2 pictures, 3 passes each"
    assert found["picture"] == pytest.approx(3 * 2 * 0.1)


def test_an_evaluation_that_was_made_tells_better(run: Run) -> None:
    made = Evaluation(
        key="k",
        settings=parse_evaluation({"metrics": ["validation"]}),
        validated_pictures=8,
        checkpoints=[
            Evaluated(step=0, key="k", seconds=99),
            Evaluated(step=5, key="k", seconds=3),
            Evaluated(step=9, key="k", seconds=5),
        ],
    )
    found = costs(run, made)
    assert found is not None and found["validation"] == pytest.approx(4)
    assert found["picture"] == pytest.approx(4 / (8 * 5) * 3 * 2)


def test_settings_that_cannot_be_read_tell_nothing(run: Run) -> None:
    run.config_path.write_text("train: fast\n")
    assert costs(run, None) is None
