"""What a run measured, in columns: nothing is lost, the last word counts, pauses are no training time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ui.metric_store import MOST_METRICS, MetricStore, number


def told(step: int, loss: Any = 1.0, time: float | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "metric", "step": step, "time": 100 + step if time is None else time, "loss": loss, **more}


def test_columns_grow_and_late_metrics_are_empty_before() -> None:
    store = MetricStore()
    store.add([told(step, step / 2) for step in range(1, 3000)])
    store.add([told(3000, 7.0, grad_norm=0.5)])
    assert (len(store), store.last_step, store.names) == (3000, 3000, ["loss", "grad_norm"])
    assert np.array_equal(store.column("loss"), [*(step / 2 for step in range(1, 3000)), 7.0])
    assert np.isnan(store.column("grad_norm")[:-1]).all() and store.column("grad_norm")[-1] == 0.5


def test_words_for_numbers_are_told_from_nothing() -> None:
    store = MetricStore()
    store.add([told(1, "nan"), told(2, "-inf"), told(3, None), told(4, True), told(5, [1]), told(6, 3)])
    assert [str(value) for value in store.column("loss")] == ["inf", "inf", "nan", "nan", "nan", "3.0"]
    assert (number(3), number(True), number("nan"), number(math.inf)) == (3.0, None, None, None)


def test_going_back_takes_out_what_is_done_again() -> None:
    store = MetricStore()
    store.add([told(step, float(step)) for step in range(1, 11)])
    store.interrupt()
    store.add([told(step, -float(step), time=1000 + step, step_ms=500) for step in range(6, 9)])
    assert store.steps.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert store.column("loss").tolist() == [1, 2, 3, 4, 5, -6, -7, -8]
    assert [part.steps.tolist() for part in store.overlaps] == [[6, 7, 8, 9, 10]]
    assert store.overlaps[0].loss.tolist() == [6, 7, 8, 9, 10]


def test_training_time_leaves_pauses_out() -> None:
    store = MetricStore()
    store.add([told(1, time=50.0, step_ms=2000), told(2, time=53.0)])
    store.interrupt()
    store.add([told(3, time=9000.0, step_ms=1500), told(4, time=9002.0), told(5, time=9001.0)])  # a clock set back
    assert store.elapsed.tolist() == pytest.approx([2.0, 5.0, 6.5, 8.5, 8.5])


def test_names_are_bounded() -> None:
    store = MetricStore()
    store.add([told(1, **{f"metric_{index}": 1.0 for index in range(100)}, **{"<b>": 1.0, "words": "x"})])
    assert len(store.names) == MOST_METRICS
    assert "<b>" not in store.names and "words" not in store.names and "time" not in store.names
