"""The plan of a run (what ``trainer plan --json`` answers) as a report on the page. No Gradio."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from ui.run_view import duration, file_size

NOTES: dict[str, str] = {
    "skipped": "left out",
    "without_caption": "without a caption",
    "empty_caption": "with an empty caption",
    "long_caption": "with a caption that is too long",
    "cropped": "cropped a lot",
    "enlarged": "enlarged",
    "small": "smaller than the resolution",
}
"""Kinds of pictures worth a look, most important first; a kind that is not named here is told by its own name."""
MOST_SHOWN = 20


def running_html() -> str:
    """While the plan is being made."""
    return '<p class="quiet" role="status">Looking at the pictures and the model …</p>'


def report_html(plan: dict[str, Any]) -> str:
    """What the run would do: verdict, figures, warnings, then buckets and pictures to unfold."""
    return (
        f'<section class="plan" role="status">{_verdict(plan)}{_figures(plan)}{_buckets(plan)}{_notes(plan)}</section>'
    )


def _verdict(plan: dict[str, Any]) -> str:
    warnings = plan["warnings"]
    if not warnings:
        return '<p class="good">Ready to train: nothing found that stands in the way.</p>'
    items = "".join(f"<li>{html.escape(each['message'])} {html.escape(each['hint'])}</li>" for each in warnings)
    return f'<p class="look">Ready to train. Worth a look first:</p><ul>{items}</ul>'


def _figures(plan: dict[str, Any]) -> str:
    estimate = plan["estimate"]
    seconds = estimate["seconds"]
    rows = {
        "Pictures": _pictures(plan),
        "Steps": f"{plan['max_steps']}, {plan['epochs']:g} passes over the pictures",
        "An epoch": plan["arithmetic"],
        "Captions": plan["captions"],
        "GPU memory": f"about {file_size(estimate['vram_bytes'])}",
        "Disk": f"about {file_size(estimate['disk_bytes'])}",
        "Time": f"about {duration(seconds)}" if seconds is not None else estimate["seconds_note"],
    }
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in rows.items()) + "</dl>"


def _pictures(plan: dict[str, Any]) -> str:
    parts = [str(plan["pictures"])]
    if plan["regularization_pictures"]:
        parts.append(f"{plan['regularization_pictures']} for regularization")
    if plan["validation_pictures"]:
        parts.append(f"{plan['validation_pictures']} held back for validation")
    return ", ".join(parts)


def _buckets(plan: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{bucket['width']} × {bucket['height']}</td><td>{bucket['pictures']}</td><td>{bucket['views']}</td>"
        f"<td>{bucket['batches']}</td><td>{bucket['cropped_share']:.0%}</td></tr>"
        for bucket in plan["buckets"]
    )
    count = len(plan["buckets"])
    head = "".join(f"<th>{name}</th>" for name in ("Size", "Pictures", "Seen", "Batches", "Cut off"))
    title = f"{count} bucket{'s' if count != 1 else ''}"
    return (
        f"<details><summary>{title}</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></details>"
    )


def _notes(plan: dict[str, Any]) -> str:
    kinds = [*(kind for kind in NOTES if kind in plan["notes"]), *(kind for kind in plan["notes"] if kind not in NOTES)]
    return "".join(_note(kind, plan["notes"][kind]) for kind in kinds if plan["notes"][kind])


def _note(kind: str, pictures: list[dict[str, Any]]) -> str:
    count = len(pictures)
    title = f"{count} picture{'s' if count != 1 else ''} {NOTES.get(kind, kind.replace('_', ' '))}"
    items = "".join(
        f"<li>{html.escape(Path(str(each['path'])).name)}: {html.escape(str(each['note']))}</li>"
        for each in pictures[:MOST_SHOWN]
    )
    rest = f"<li>and {count - MOST_SHOWN} more</li>" if count > MOST_SHOWN else ""
    return f"<details><summary>{html.escape(title)}</summary><ul>{items}{rest}</ul></details>"
