"""What an evaluation found, as TensorBoard has it: read back from its own files."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.recipe.tiny_runs import Watcher
from trainer.config_io import parse_config
from trainer.evaluating.results import Drawn, Evaluated, Evaluation, evaluation_of
from trainer.evaluating.settings import parse_evaluation
from trainer.runs.store import Run, Workspace
from trainer.tracking.evaluations import track_evaluation


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Workspace(tmp_path).create_run(parse_config({"name": "cat", "trackers": ["tensorboard", "trackio"]}))
    evaluation_of(run.dir).pictures.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(evaluation_of(run.dir).pictures / "a.png")
    return run


def found() -> Evaluation:
    drawn = [Drawn(picture=name, prompt="a <b>cat", seed=1) for name in ("a.png", "gone.png")]
    checkpoints = [
        Evaluated(step=0, key="k", validation_loss=0.5, drift=0.0),
        Evaluated(step=10, key="k", validation_loss=0.25, drift=0.125, copies=1, drawn=drawn),
    ]
    return Evaluation(key="0123456789", settings=parse_evaluation({}), checkpoints=checkpoints)


def test_every_measure_and_picture_is_there_beside_the_curves_of_the_training(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from trainer.tracking import tracking

    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "trackio" else name)
    watcher = Watcher()
    track_evaluation(run.dir, run.config(), found(), watcher)
    told = [(event["code"], "trackio" in event["message"]) for event in watcher.events]
    assert told == [("tracker.missing", True)], "one that is missing holds the other up in nothing"

    folder = run.dir / "trackers" / "evaluation-01234567" / "tensorboard"
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    values = {name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}
    assert values == {
        "evaluation/validation_loss": {0: 0.5, 10: 0.25},
        "evaluation/drift": {0: 0.0, 10: 0.125},
        "evaluation/copies": {10: 1.0},
    }
    assert [image.step for image in events.Images("evaluation 1")] == [10]
    assert "evaluation 2" not in events.Tags()["images"], "its file was removed"


def test_without_trackers_nothing_is_made(run: Run) -> None:
    config = run.config().model_copy(update={"trackers": []})
    track_evaluation(run.dir, config, found(), Watcher())
    assert not (run.dir / "trackers").exists()
