"""What happens when in a planned run, and its learning rate, drawn over the steps. No Gradio."""

from __future__ import annotations

import html
from typing import Any

_SIDE = 1000


def timeline_html(plan: dict[str, Any]) -> str:
    """The learning rate as a curve, and below it a row of marks for each kind of thing that happens."""
    line, steps = plan["timeline"], plan["max_steps"]
    rows = "".join(
        f'<div class="row"><span>{html.escape(each["what"])} <b>{each["count"]}</b></span>'
        f'<div class="track">{"".join(_mark(step, steps) for step in each["steps"])}</div></div>'
        for each in line["marks"]
    )
    return (
        '<details open class="timeline"><summary>What happens when</summary>'
        f'<div class="row rate"><span>learning rate <b>{_peak(line):.3g}</b></span>{_curve(line, steps)}</div>{rows}'
        f'<div class="row axis"><span></span><div><span>0</span><span>{steps} steps</span></div></div></details>'
    )


def _curve(line: dict[str, Any], steps: int) -> str:
    peak = _peak(line) or 1.0
    points = " ".join(
        f"{step / max(1, steps - 1) * _SIDE:.0f},{(1 - rate / peak) * _SIDE:.0f}"
        for step, rate in line["learning_rate"]
    )
    if len(line["learning_rate"]) == 1:
        points += f" {_SIDE},{points.partition(',')[2]}"
    return (
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none" role="img" aria-label="Learning rate over the '
        f'steps"><polyline points="{points}"/></svg>'
    )


def _peak(line: dict[str, Any]) -> float:
    return max(rate for _, rate in line["learning_rate"])


def _mark(step: int, steps: int) -> str:
    return f'<i style="left:{step / max(1, steps):.2%}" title="step {step}"></i>'
