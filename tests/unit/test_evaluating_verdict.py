"""Which checkpoint is called the best, and what the numbers are said to mean."""

from __future__ import annotations

import pytest

from trainer.evaluating.results import Evaluated
from trainer.evaluating.verdict import best_of, hints_of


def row(step: int, loss: float | None = None, **values: object) -> Evaluated:
    return Evaluated.model_validate({"step": step, "key": "", "validation_loss": loss, **values})


def test_the_lowest_loss_wins_and_the_base_model_never() -> None:
    best, why = best_of([row(0, 0.1), row(100, 0.4), row(200, 0.3), row(300, 0.35)], held_out=True, marked=300)
    assert best == 200 and "0.3" in why


@pytest.mark.parametrize(
    ("marked", "drifts", "best", "reason"),
    [
        (300, (0.1, 0.2), 300, "training marked"),
        (None, (0.3, 0.2), 300, "drifts least"),
        (None, (None, None), 200, "earliest"),
        (100, (0.2, 0.2), 200, "earliest"),
    ],
)
def test_equal_losses_are_settled_by_the_mark_then_drift_then_age(marked, drifts, best, reason) -> None:
    rows = [row(100, 0.4), row(200, 0.3, drift=drifts[0]), row(300, 0.3 * 1.004, drift=drifts[1])]
    found, why = best_of(rows, held_out=True, marked=marked)
    assert found == best and reason in why


def test_without_held_out_pictures_the_loss_decides_nothing() -> None:
    rows = [row(100, 0.4), row(200, 0.1)]
    assert best_of(rows, held_out=False, marked=None)[0] is None
    assert best_of(rows, held_out=False, marked=100)[0] == 100
    alike = [row(100, 0.4, image_similarity=0.7, copies=0), row(200, 0.1, image_similarity=0.9, copies=2)]
    assert best_of(alike, held_out=False, marked=None)[0] == 100, "the other one copies"


def test_hints_tell_learning_by_heart_still_falling_copies_and_no_gain() -> None:
    by_heart = hints_of([row(0, 0.5), row(100, 0.4), row(200, 0.3), row(300, 0.36)], held_out=True)
    assert len(by_heart) == 1 and "After step 200" in by_heart[0] and "20%" in by_heart[0]
    assert "still falling" in hints_of([row(0, 0.5), row(100, 0.4), row(200, 0.3)], held_out=True)[0]
    assert "better than the base" in hints_of([row(0, 0.2), row(100, 0.4), row(200, 0.3)], held_out=True)[0]
    copying = [row(100, copies=0), row(200, copies=1, drawn=[{"picture": "a.png", "prompt": "", "seed": 1}] * 2)]
    assert "From step 200" in hints_of(copying, held_out=True)[0]
    assert "trained on" in hints_of([row(100, 0.4)], held_out=False)[0]
    assert hints_of([row(0, 0.5), row(100, 0.4), row(200, 0.41)], held_out=True) == []
