"""When things are due, against tables written by hand."""

from __future__ import annotations

from trainer.rhythm import Rhythm


def due_steps(rhythm: Rhythm, steps: int, batches: int = 7, accumulation: int = 1) -> list[int]:
    return [step for step in range(steps + 1) if rhythm.due(step, lambda done: done * accumulation // batches)]


def test_by_steps() -> None:
    assert due_steps(Rhythm(3), 10) == [3, 6, 9]
    assert due_steps(Rhythm(0), 10) == []


def test_by_epochs_which_win_over_steps() -> None:
    assert due_steps(Rhythm(3, 1), 22) == [7, 14, 21]
    assert due_steps(Rhythm(3, 2), 30) == [14, 28]


def test_an_epoch_that_ends_inside_a_step_is_reached_by_that_step() -> None:
    """7 batches an epoch, 3 a step: epochs end in steps 3 (9 batches), 5 (15), 7 (21)."""
    assert due_steps(Rhythm(0, 1), 8, accumulation=3) == [3, 5, 7]


def test_a_step_of_several_epochs_is_due_once() -> None:
    assert due_steps(Rhythm(0, 1), 3, batches=2, accumulation=5) == [1, 2, 3]
    assert due_steps(Rhythm(0, 4), 3, batches=2, accumulation=5) == [2]  # 5, 10, 15 batches: epochs 2, 5, 7


def test_named_steps_are_due_besides() -> None:
    assert due_steps(Rhythm(4, None, [1, 5]), 9) == [1, 4, 5, 8]
    assert due_steps(Rhythm(0, None, [2]), 9) == [2]
    assert due_steps(Rhythm(0, 1, [2]), 9) == [2, 7]


def test_ever() -> None:
    assert not Rhythm(0).ever
    assert Rhythm(1).ever and Rhythm(0, 1).ever and Rhythm(0, None, [1]).ever


def test_counting_is_as_going_through_all_steps() -> None:
    def epochs_done(step: int) -> int:
        return step // 7

    for rhythm in (Rhythm(4), Rhythm(0), Rhythm(4, None, [1, 5, 8]), Rhythm(3, 2), Rhythm(0, 1, [2, 14])):
        for first, last in ((1, 30), (8, 8), (5, 21), (9, 3)):
            due = [step for step in range(first, last + 1) if rhythm.due(step, epochs_done)]
            assert rhythm.count(first, last, epochs_done) == len(due)
