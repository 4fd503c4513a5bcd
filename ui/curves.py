"""Curves of a run for the browser: thinned without losing spikes, smoothed, as JSON or CSV. No gradio in here."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ui.metric_store import MetricStore, Numbers

Axis = Literal["step", "time"]
MOST_POINTS = 2000
_BLOCK = 512
_MOST_MARKS = 200
_CSV_ROWS = 5000
_PLAIN = ("lr", "vram_bytes")
"""Metrics that do not jump: they get no smoothed line."""


@dataclass(frozen=True)
class Stretch:
    """What of a run is looked at, and how.

    Attributes:
        axis: what ``first`` and ``last`` count: steps, or seconds of training.
        first, last: both included; None for the beginning and the end.
        points: at most so many points of each curve.
        keep: share of the smoothed line that each step keeps, from 0 to below 1; None for a usual one.
    """

    axis: Axis = "step"
    first: float | None = None
    last: float | None = None
    points: int = 500
    keep: float | None = None


def curves(store: MetricStore, stretch: Stretch) -> dict[str, Any]:
    """Every metric between two steps or times.

    A point stands for a power of two of steps, so that points stay where they are while a run goes on: ``mean``,
    ``low`` and ``high`` of them at the last of these steps, and the smoothed line there. Where a point is one step,
    ``low`` and ``high`` are left out. The smoothed line is made of all values, so that zooming does not change it.
    """
    scale = store.steps if stretch.axis == "step" else store.elapsed
    count = len(store)
    begin = 0 if stretch.first is None else int(np.searchsorted(scale, stretch.first))
    end = count if stretch.last is None else int(np.searchsorted(scale, stretch.last, side="right"))
    size = _power_of_two((end - begin) / max(2, min(stretch.points, MOST_POINTS)))
    edges = np.arange(begin // size * size, end, size)
    lasts = np.minimum(edges + size, count) - 1
    keep = usual_keep(count) if stretch.keep is None else stretch.keep
    return {
        "keep": keep,
        "size": size,
        "steps": store.steps[lasts],
        "elapsed": np.round(store.elapsed[lasts], 3),
        "span": [store.steps[[0, -1]], store.elapsed[[0, -1]]] if count else [],
        "series": {
            name: _series(store.column(name), store.steps, edges, lasts, None if name.startswith(_PLAIN) else keep)
            for name in store.names
            if len(edges)
        },
        "overlaps": [
            {"steps": each.steps, "elapsed": np.round(each.elapsed, 3), "loss": _short(each.loss)}
            for each in store.overlaps
        ],
    }


def _series(
    values: Numbers, steps: NDArray[np.int64], edges: NDArray[np.int64], lasts: NDArray[np.int64], keep: float | None
) -> dict[str, Any]:
    begin, end = int(edges[0]), int(lasts[-1]) + 1
    part = values[begin:end]
    there = np.isfinite(part)
    series: dict[str, Any] = {}
    if end - begin == len(edges):
        series["mean"] = _short(np.where(there, part, math.nan))
    else:
        shares = edges - begin
        counts = np.add.reduceat(there, shares, dtype=np.int64)
        sums = np.add.reduceat(np.where(there, part, 0.0), shares)
        with np.errstate(invalid="ignore"):
            series["mean"] = _short(sums / counts)
        series["low"] = _short(np.fmin.reduceat(np.where(there, part, math.nan), shares))
        series["high"] = _short(np.fmax.reduceat(np.where(there, part, math.nan), shares))
    if keep is not None:
        series["smooth"] = _short(smoothed(values[:end], keep)[lasts])
    if there.any():
        inside = np.flatnonzero(there) + begin
        told = values[inside]
        places = {"low": inside[told.argmin()], "high": inside[told.argmax()], "last": inside[-1]}
        series["facts"] = {fact: [float(values[place]), int(steps[place])] for fact, place in places.items()}
    bad = np.flatnonzero(np.isinf(part)) + begin
    if len(bad):
        series["bad"] = {"count": len(bad), "steps": steps[bad[:_MOST_MARKS]]}
    return series


def smoothed(values: Numbers, keep: float) -> Numbers:
    """Exponential moving mean without a bias towards the start; where no value was told, the last one.

    With ``keep`` = k the line at value t is sum of k^(t-i) v_i over that of k^(t-i): the debiased mean of Kingma and
    Ba, Adam (2015), section 3. Worked out in blocks, each by one matrix product.
    """
    there = np.isfinite(values)
    told = values[there]
    powers = keep ** np.arange(_BLOCK + 1, dtype=np.float64)
    rows = np.arange(_BLOCK)
    kernel = np.where(rows[:, None] >= rows, powers[np.abs(rows[:, None] - rows)], 0.0) * (1 - keep)
    blocks = np.zeros((math.ceil(len(told) / _BLOCK), _BLOCK))
    blocks.reshape(-1)[: len(told)] = told
    sums = blocks @ kernel.T
    carry = 0.0
    for block in sums:
        block += carry * powers[1:]
        carry = block[-1]
    weights = 1 - keep ** np.arange(1, len(told) + 1, dtype=np.float64)
    line = sums.reshape(-1)[: len(told)] / weights
    places = np.cumsum(there) - 1
    return np.where(places >= 0, line[places], math.nan) if len(line) else np.full(len(values), math.nan)


def usual_keep(count: int) -> float:
    """Of a run of so many steps: as a mean over about a twentieth of them, 5 to 200."""
    span = min(200.0, max(5.0, _power_of_two(count / 20)))
    return 1 - 2 / (span + 1)


def csv_lines(store: MetricStore, validation: Mapping[int, float]) -> Iterator[str]:
    """Every step as a line of a CSV file, exactly as measured; empty where nothing was told."""
    names = store.names
    header = ["step", "training_seconds", *names, *(["validation_loss"] if validation else [])]
    yield ",".join(header) + "\n"
    columns = [store.column(name).copy() for name in names]
    steps, elapsed = store.steps.copy(), store.elapsed.copy()
    for start in range(0, len(steps), _CSV_ROWS):
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        for index in range(start, min(start + _CSV_ROWS, len(steps))):
            step = int(steps[index])
            checks = [repr(validation[step]) if step in validation else ""] if validation else []
            rows.writerow([step, f"{elapsed[index]:.3f}", *(_cell(column[index]) for column in columns), *checks])
        yield text.getvalue()


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    return "not a number" if math.isinf(value) else repr(float(value))


def _power_of_two(least: float) -> int:
    """The smallest that is no less."""
    return 1 << max(0, math.ceil(math.log2(least))) if least > 1 else 1


def _short(values: Numbers) -> NDArray[np.float32]:
    """Seven digits, which no screen shows more of."""
    return np.ascontiguousarray(values, dtype=np.float32)
