"""The plan of a run as a report on the page. No Gradio."""

from __future__ import annotations

import html
from typing import Any


def running_html() -> str:
    """While the plan is being made."""
    return '<p class="quiet" role="status">Looking at the pictures and the model …</p>'


def failed_html(problems: list[dict[str, Any]]) -> str:
    """When no plan could be made."""
    items = "".join(
        f'<li data-field="{html.escape(str(problem["field"]))}">'
        f"{html.escape(problem['message'])} {html.escape(problem['hint'])}</li>"
        for problem in problems
    )
    return f'<ul class="problems" role="alert">{items}</ul>'


def report_html(plan: dict[str, Any]) -> str:
    """The plan, most important first."""
    rows = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>" for name, value in plan.items()
    )
    return f"<table>{rows}</table>"
