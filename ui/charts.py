"""Line charts as HTML with an SVG inside: cheap to update, sharp, in the page's colours. No gradio in here.

The drawing is stretched to the space there is (its lines keep their width), the labels are ordinary text beside it.
``assets/charts.js`` reads values under the pointer and lets a stretch of steps be dragged out.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from ui.run_view import Curve

SIDE = 1000
"""The drawing's own width and height, whatever its size on screen."""


def loss_chart(curve: Curve, validation: Sequence[tuple[int, float]] = (), *, zoomed: bool = False) -> str:
    """Loss over steps: range and mean faint, smoothed line strong, validation as a line with dots."""
    if not curve.steps:
        return ""
    first, last = curve.steps[0], max(curve.steps[-1], curve.steps[0] + 1)
    checks = [(step, loss) for step, loss in validation if first <= step <= last]
    low, high = _range([*curve.values, *curve.smooth, *[loss for _, loss in checks]])
    scale = _Scale(first, last, low, high)
    layers = [
        scale.band(curve.steps, curve.low, curve.high, "band") if curve.low != curve.high else "",
        scale.line(curve.steps, curve.values, "raw", "loss"),
        scale.line(curve.steps, curve.smooth, "smooth", "smoothed"),
        scale.line([step for step, _ in checks], [loss for _, loss in checks], "validation", "validation"),
    ]
    legend = [("raw", "each step"), ("smooth", "smoothed"), *([("validation", "validation")] if checks else [])]
    return _figure("Loss", scale, layers, legend, "large", zoomed=zoomed)


def small_chart(title: str, curve: Curve, shown: str) -> str:
    """One value over the steps, with its latest value in words; empty without points."""
    if not curve.steps:
        return ""
    last = max(curve.steps[-1], curve.steps[0] + 1)
    scale = _Scale(curve.steps[0], last, *_range(curve.values))
    line = scale.line(curve.steps, curve.values, "smooth", title.lower())
    return _figure(title, scale, [line], [], "small", shown=shown)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten, at most ``most``."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + index) * step for index in range(count)]


class _Scale:
    """From steps and values to the drawing's own coordinates."""

    def __init__(self, first: int, last: int, low: float, high: float) -> None:
        self.first, self.last, self.low, self.high = first, last, low, high

    def x(self, step: float) -> float:
        return (step - self.first) / (self.last - self.first) * SIDE

    def y(self, value: float) -> float:
        return (self.high - min(max(value, self.low), self.high)) / (self.high - self.low) * SIDE

    def points(self, steps: Sequence[float], values: Sequence[float]) -> str:
        return " ".join(f"{self.x(s):.1f},{self.y(v):.1f}" for s, v in zip(steps, values, strict=True))

    def line(self, steps: Sequence[int], values: Sequence[float], kind: str, name: str) -> str:
        if not values:
            return ""
        return f'<polyline class="{kind}" data-name="{html.escape(name)}" points="{self.points(steps, values)}"/>'

    def band(self, steps: Sequence[int], low: Sequence[float], high: Sequence[float], kind: str) -> str:
        back = self.points(list(reversed(steps)), list(reversed(low)))
        return f'<polygon class="{kind}" points="{self.points(steps, high)} {back}"/>'


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The span to show: all but the wildest hundredth, with a little room."""
    ordered = sorted(values)
    cut = len(ordered) // 100
    low, high = ordered[cut], ordered[-1 - cut]
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def _figure(
    title: str,
    scale: _Scale,
    layers: list[str],
    legend: list[tuple[str, str]],
    size: str,
    *,
    shown: str = "",
    zoomed: bool = False,
) -> str:
    large = size == "large"
    rows = ticks(scale.low, scale.high, 5 if large else 2)
    columns = ticks(scale.first, scale.last, 8 if large else 3)
    grid = "".join(f'<line x1="0" x2="{SIDE}" y1="{scale.y(row):.1f}" y2="{scale.y(row):.1f}"/>' for row in rows)
    left = "".join(f'<span style="top:{scale.y(row) / SIDE:.2%}">{_short(row)}</span>' for row in rows)
    below = "".join(
        f'<span style="left:{scale.x(column) / SIDE:.2%}">{column:g}</span>'
        for column in columns
        if column == round(column)
    )
    keys = "".join(f'<span class="key {kind}">{html.escape(name)}</span>' for kind, name in legend)
    back = '<button type="button" class="unzoom">Show all</button>' if zoomed else ""
    span = f'data-first="{scale.first}" data-last="{scale.last}" data-low="{scale.low!r}" data-high="{scale.high!r}"'
    caption = f"<figcaption><b>{html.escape(title)}</b><span>{html.escape(shown)}</span>{keys}{back}</figcaption>"
    drawing = (
        f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" role="img" aria-label="{html.escape(title)}">'
        f'<g class="grid">{grid}</g>{"".join(layers)}</svg>'
    )
    return (
        f'<figure class="chart {size}" {span}>{caption}<div class="plot"><div class="left">{left}</div>'
        f'<div class="drawing">{drawing}<div class="readout" hidden></div></div>'
        f'<div class="below">{below}</div></div></figure>'
    )


def _short(value: float) -> str:
    return f"{value:.0e}" if value and abs(value) < 0.001 else f"{value:.3g}"
