"""What happens when: the same as the run itself asks, step by step."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.unit.dataset_samples import config_for
from trainer.rhythm import Rhythm
from trainer.schedulers import learning_rate_factor
from trainer.timeline import MOST_MARKS, due_steps, timeline


@pytest.mark.parametrize(("batches", "accumulation"), itertools.product([1, 3, 7, 20], [1, 2, 5, 30]))
def test_due_steps_are_those_that_a_run_finds_due(batches: int, accumulation: int) -> None:
    most = 60
    for rhythm in (
        Rhythm(0), Rhythm(7), Rhythm(60), Rhythm(5, None, [1, 13, 60, 99]), Rhythm(7, 1), Rhythm(0, 3, [2]),
    ):  # fmt: skip
        expected = {step for step in range(1, most) if rhythm.due(step, lambda done: done * accumulation // batches)}
        assert due_steps(rhythm, most, batches, accumulation) == expected


def test_the_line_of_a_run(tmp_path: Path) -> None:
    config = config_for(
        tmp_path,
        samples={"every_steps": 40, "prompts": ["a cat"]},
        validation={"split": 0.1, "every_epochs": 2},
        output={"save_every_steps": 30, "save_at": [10]},
    )
    line = timeline(config, 100, 20, validates=True)
    assert {each.what: each.steps for each in line.marks} == {
        "previews": [0, 40, 80, 100],
        "validation": [0, 40, 80, 100],
        "checkpoints": [10, 30, 60, 90, 100],
    }
    assert line.epoch_steps == 20
    quiet = config_for(tmp_path, samples={"every_steps": 0, "at_start": False, "prompts": ["a cat"]})
    assert [each.what for each in timeline(quiet, 100, 20, validates=False).marks] == ["checkpoints"]


def test_many_marks_are_thinned_out_but_counted(tmp_path: Path) -> None:
    config = config_for(tmp_path, output={"save_every_steps": 1})
    (saves,) = timeline(config, 100_000, 20, validates=False).marks
    assert saves.count == 100_000 and len(saves.steps) == MOST_MARKS
    assert (saves.steps[0], saves.steps[-1]) == (1, 100_000) and saves.steps == sorted(set(saves.steps))


@pytest.mark.parametrize("steps", [1, 7, 5000])
def test_the_learning_rate_is_the_schedulers(tmp_path: Path, steps: int) -> None:
    config = config_for(tmp_path, train={"learning_rate": 0.5, "lr_warmup_steps": 3, "lr_scheduler": "cosine"})
    points = timeline(config, steps, 20, validates=False).learning_rate
    factor = learning_rate_factor(config.train, steps)
    assert points == [(step, 0.5 * factor(step)) for step, _ in points]
    assert points[0][0] == 0 and points[-1][0] == steps - 1 and len(points) <= MOST_MARKS + 2
    assert steps < 4 or (3, 0.5) in points  # the bend after the warm-up is not missed
