"""What is kept of an evaluation, and when it no longer counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.evaluating.results import Drawn, Evaluated, Evaluation, Nearest, evaluation_of
from trainer.evaluating.settings import parse_evaluation


def test_results_are_found_by_key_and_broken_ones_are_not_there(tmp_path: Path) -> None:
    folder = evaluation_of(tmp_path)
    assert folder.known("a") == {} and folder.read_summary() is None
    folder.dir.mkdir()
    folder.write(Evaluated(step=100, key="a", validation_loss=0.25))
    folder.write(Evaluated(step=200, key="b"))
    (folder.dir / "step-000300.json").write_text('{"step": 300, "key"')
    folder.summary_path.write_text("[]")
    assert folder.known("a") == {100: Evaluated(step=100, key="a", validation_loss=0.25)}
    assert folder.read_summary() is None


def test_the_summary_keeps_its_pictures_only(tmp_path: Path) -> None:
    folder = evaluation_of(tmp_path)
    folder.pictures.mkdir(parents=True)
    for name in ("mine.png", "train-1.png", "old.png"):
        (folder.pictures / name).touch()
    near = Nearest(picture="train-1.png", source="x", similarity=1, copied=True)
    row = Evaluated(step=1, key="a", drawn=[Drawn(picture="mine.png", prompt="p", seed=1, nearest=near)])
    evaluation = Evaluation(key="a", settings=parse_evaluation({}), checkpoints=[row], best=1)
    folder.write_summary(evaluation)
    assert folder.read_summary() == evaluation
    assert sorted(path.name for path in folder.pictures.iterdir()) == ["mine.png", "train-1.png"]


def test_a_run_that_was_deleted_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    folder = evaluation_of(tmp_path / "gone")
    with pytest.raises(UserError, match="gone was deleted"):
        folder.write(Evaluated(step=100, key="a"))
    assert list(tmp_path.iterdir()) == []


def test_one_process_evaluates_at_a_time(tmp_path: Path) -> None:
    with evaluation_of(tmp_path).lock(), pytest.raises(UserError, match="being evaluated already"):
        evaluation_of(tmp_path).lock()
    evaluation_of(tmp_path).lock().release()
