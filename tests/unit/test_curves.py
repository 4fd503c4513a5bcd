"""Curves for the browser against sums worked out step by step."""

from __future__ import annotations

import csv
import math
import random
from typing import Any

import numpy as np
import orjson
import pytest

from ui.curves import Stretch, csv_lines, curves, smoothed, usual_keep
from ui.metric_store import MetricStore


def filled(values: list[Any], **more: float) -> MetricStore:
    store = MetricStore()
    store.add([{"step": step, "time": 2.0 * step, "loss": value, **more} for step, value in enumerate(values, 1)])
    return store


def by_hand(values: list[float], keep: float) -> list[float]:
    line, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        line.append(total / weight)
    return line


@pytest.mark.parametrize("keep", [0.0, 0.6, 0.99, 0.9999])
def test_smooth_line_by_hand(keep: float) -> None:
    draw = random.Random(1)
    values = [draw.random() for _ in range(1500)]
    assert smoothed(np.array(values), keep) == pytest.approx(by_hand(values, keep), rel=1e-9)


def test_smooth_line_skips_what_was_not_told() -> None:
    line = smoothed(np.array([math.nan, 2.0, math.inf, 4.0, math.nan]), 0.5)
    assert line.tolist()[1:] == pytest.approx([2.0, 2.0, (2 * 0.5 + 4) / 1.5, (2 * 0.5 + 4) / 1.5])
    assert math.isnan(line[0])
    assert np.isnan(smoothed(np.array([math.nan, math.inf]), 0.5)).all()
    assert len(smoothed(np.array([]), 0.5)) == 0


def test_points_keep_spikes_and_stay_where_they_are() -> None:
    values = [1.0] * 10_000
    values[4321] = 99.0
    answer = curves(filled(values), Stretch(points=500))
    series = answer["series"]["loss"]
    size = answer["size"]
    assert (size, len(answer["steps"])) == (32, math.ceil(10_000 / 32))
    point = 4321 // size
    assert (series["low"][point], series["high"][point]) == (1.0, 99.0)
    assert series["mean"][point] == pytest.approx((31 + 99) / 32)
    assert series["facts"] == {"low": [1.0, 1], "high": [99.0, 4322], "last": [1.0, 10_000]}
    longer = curves(filled([*values, *[2.0] * 500]), Stretch(points=500))
    assert longer["steps"][: len(answer["steps"]) - 1].tolist() == answer["steps"][:-1].tolist()


def test_zooming_shows_each_step_and_the_same_smooth_line() -> None:
    store = filled([math.sin(step / 50) for step in range(5000)])
    whole = curves(store, Stretch(points=2000, keep=0.9))
    part = curves(store, Stretch(first=101, last=300, keep=0.9))
    assert part["steps"].tolist() == list(range(101, 301))
    assert part["size"] == 1 and "low" not in part["series"]["loss"]
    at, there = whole["steps"].tolist().index(200), part["steps"].tolist().index(200)
    assert part["series"]["loss"]["smooth"][there] == whole["series"]["loss"]["smooth"][at]
    assert part["keep"] == 0.9 and curves(store, Stretch())["keep"] == usual_keep(5000)


def test_by_time() -> None:
    answer = curves(filled([1.0] * 10, step_ms=2000), Stretch(axis="time", first=4.0, last=8.0))
    assert answer["elapsed"].tolist() == [4.0, 6.0, 8.0]
    assert answer["steps"].tolist() == [2, 3, 4]


def test_bad_values_are_told_and_leave_the_rest() -> None:
    series = curves(filled([1.0, "nan", 3.0, "inf"] * 1000), Stretch(points=100))["series"]["loss"]
    assert series["bad"]["count"] == 2000 and series["bad"]["steps"][:2].tolist() == [2, 4]
    assert set(series["mean"].tolist()) == {2.0}
    only_bad = curves(filled(["nan"] * 300), Stretch(points=100))["series"]["loss"]
    assert np.isnan(only_bad["mean"]).all() and "facts" not in only_bad


def test_empty_stretches() -> None:
    nothing = curves(MetricStore(), Stretch())
    assert (nothing["series"], nothing["span"], len(nothing["steps"])) == ({}, [], 0)
    beyond = curves(filled([1.0, 2.0]), Stretch(first=100, last=200))
    assert (beyond["series"], len(beyond["steps"])) == ({}, 0)
    orjson.dumps([nothing, beyond], option=orjson.OPT_SERIALIZE_NUMPY)


def test_csv_is_exact() -> None:
    store = filled([0.1, "nan", 1 / 3], grad_norm=0.25)
    rows = list(csv.DictReader("".join(csv_lines(store, {3: 0.7})).splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [row["loss"] for row in rows] == ["0.1", "not a number", repr(1 / 3)]
    assert [row["validation_loss"] for row in rows] == ["", "", "0.7"]
    assert "validation_loss" not in next(csv_lines(store, {}))
