"""The best step and the end by patience, against losses written by hand."""

from __future__ import annotations

import math

import pytest

from trainer.validation_history import ValidationHistory


def history(losses: dict[int, float], patience: int | None = None) -> ValidationHistory:
    found = ValidationHistory(patience)
    for step, loss in losses.items():
        found.add(step, loss)
    return found


def test_the_best_is_the_lowest_and_never_the_untrained_model() -> None:
    assert history({}).best_step is None
    assert history({0: 0.1}).best_step is None
    assert history({0: 0.1, 10: 0.3, 20: 0.2, 30: 0.25}).best_step == 20
    assert history({10: 0.2, 20: 0.2}).best_step == 10, "of equals the earlier"
    assert history({10: math.nan, 20: math.inf, 30: 5.0}).best_step == 30


def test_relative_to_the_start() -> None:
    found = history({0: 0.5, 10: 0.4, 20: math.nan})
    assert found.relative(10) == pytest.approx(0.8) and found.relative(0) == 1
    assert found.relative(20) is None and found.relative(30) is None
    assert history({10: 0.4}).relative(10) is None


@pytest.mark.parametrize(
    ("losses", "waited"),
    [
        ({0: 1.0}, 0),
        ({0: 1.0, 10: 0.9}, 0),
        ({0: 1.0, 10: 0.9, 20: 0.95}, 1),
        ({0: 1.0, 10: 0.9, 20: 0.95, 30: 0.9}, 2),
        ({0: 1.0, 10: 0.9, 20: 0.95, 30: 0.8}, 0),
        ({0: 0.1, 10: 0.9, 20: 0.95}, 1),
        ({10: math.nan, 20: math.nan}, 2),
    ],
)
def test_patience(losses: dict[int, float], waited: int) -> None:
    assert history(losses).waited == waited
    assert not history(losses).enough
    assert history(losses, 2).enough == (waited >= 2)


def test_a_state_decides_as_the_original() -> None:
    losses = {0: 1.0, 10: 0.9, 20: 0.95, 30: 0.93}
    original = history(losses, 2)
    original.end_at(100, asked=1.5)
    copy = ValidationHistory(2)
    copy.load_state(original.state())
    assert copy.enough and copy.best_step == 10 and copy.relative(30) == 0.93 and 30 in copy and 31 not in copy
    copy.go_on(30, 100, asked=1.5)
    assert copy.enough, "the same length: it was merely interrupted while ending"
    copy.go_on(30, 200, asked=1.5)
    assert not copy.enough and copy.best_step == 10
    copy.add(40, 0.94)
    copy.add(50, 0.94)
    assert copy.enough, "patience counts from the extension"


def test_extended_to_the_length_it_had_it_is_patient_again() -> None:
    ended = history({10: 0.9, 20: 0.95, 30: 0.93}, 2)
    ended.end_at(100, asked=1.5)
    extended = ValidationHistory(2)
    extended.load_state(ended.state())
    extended.go_on(30, 100, asked=2.5)
    assert not extended.enough and extended.waited == 0


def test_a_state_of_an_older_version_knows_its_length_alone() -> None:
    old = history({10: 0.9, 20: 0.95, 30: 0.93}, 2).state() | {"ended_at": 100}
    del old["asked"]
    for max_steps, enough in ((100, True), (200, False)):
        found = ValidationHistory(2)
        found.load_state(old)
        found.go_on(30, max_steps, asked=2.5)
        assert found.enough == enough
