"""The plan of a run (what ``trainer plan --json`` answers) as a report on the page. No Gradio.

Buttons say in ``data-`` attributes what they stand for; ``assets/plan`` sends that on. All text is escaped here.
"""

from __future__ import annotations

import html
from typing import Any

from ui.plan.memory import memory_html
from ui.plan.timeline import timeline_html
from ui.run_view import duration, file_size

NOTES: dict[str, str] = {
    "skipped": "left out",
    "unused": "not used",
    "without_caption": "without a caption",
    "empty_caption": "with an empty caption",
    "long_caption": "with a caption that is too long",
    "cropped": "cropped a lot",
    "enlarged": "enlarged",
    "small": "smaller than the resolution",
}
"""Kinds of pictures worth a look, most important first; a kind that is not named here is told by its own name."""


def running_html() -> str:
    """While the plan is being made."""
    return '<p class="quiet" role="status">Looking at the pictures and the model …</p>'


def measuring_html() -> str:
    """While steps are trained to be timed."""
    return (
        '<p class="quiet" role="status">Training a few steps to see how long they take. The model is loaded and the '
        "pictures are prepared first; what is prepared is kept for the run. If another job has the GPU, they begin "
        'when it ends.</p><button type="button" data-cancel>Cancel</button>'
    )


def report_html(plan: dict[str, Any], undo: str = "") -> str:
    """What the run would do, from the verdict down to single pictures.

    Args:
        plan: the answer of ``trainer plan``.
        undo: the change that was made last, and can be taken back; empty for none.
    """
    return (
        f'<section class="plan">{_verdict(plan)}{_undo(undo)}{memory_html(plan)}{_warnings(plan)}{_figures(plan)}'
        f"{timeline_html(plan)}{_buckets(plan)}{_notes(plan)}</section>"
    )


def _verdict(plan: dict[str, Any]) -> str:
    if plan["estimate"]["fits"] is False:
        return '<p class="bad" role="status">This run does not fit into the memory there is.</p>'
    if count := len(plan["warnings"]):
        things = "thing is" if count == 1 else "things are"
        return f'<p class="look" role="status">Ready to train; {count} {things} worth a look first.</p>'
    return '<p class="good" role="status">Ready to train: nothing found that stands in the way.</p>'


def _undo(label: str) -> str:
    if not label:
        return ""
    return f'<p class="done">Changed: {html.escape(label)}. <button type="button" data-undo>Undo</button></p>'


def _warnings(plan: dict[str, Any]) -> str:
    items = "".join(_warning(number, each) for number, each in enumerate(plan["warnings"]))
    return f'<ul class="warnings">{items}</ul>' if items else ""


def _warning(number: int, warning: dict[str, Any]) -> str:
    fixes = "".join(
        f'<button type="button" class="fix" data-warning="{number}" data-fix="{place}">{html.escape(fix["label"])}'
        f"{_small(fix['cost'])}</button>"
        for place, fix in enumerate(warning["fixes"])
    )
    text = f"{html.escape(warning['message'])} {html.escape(warning['hint'])}"
    return f"<li>{text}{f'<div class=fixes>{fixes}</div>' if fixes else ''}</li>"


def _small(text: str) -> str:
    return f"<small>{html.escape(text)}</small>" if text else ""


def _figures(plan: dict[str, Any]) -> str:
    estimate = plan["estimate"]
    seconds, free = estimate["seconds"], estimate["disk_free_bytes"]
    time = f"about {duration(seconds)}, {estimate['seconds_note']}" if seconds else "not known yet"
    disk = f"about {file_size(estimate['disk_bytes'])}" + (f"; {file_size(free)} are free" if free else "")
    rows = {
        "Pictures": _pictures(plan),
        "Steps": f"{plan['max_steps']}, {plan['epochs']:g} passes over the pictures",
        "An epoch": plan["arithmetic"],
        "Captions": plan["captions"],
        "Disk": disk,
        "Time": time,
    }
    told = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in rows.items())
    ask = "Measure again" if seconds else "Measure: train a few steps"
    return f'<dl>{told}<dt></dt><dd><button type="button" data-measure>{ask}</button></dd></dl>'


def _pictures(plan: dict[str, Any]) -> str:
    parts = [str(plan["pictures"])]
    if plan["regularization_pictures"]:
        parts.append(f"{plan['regularization_pictures']} for regularization")
    if plan["validation_pictures"]:
        parts.append(f"{plan['validation_pictures']} held back for validation")
    return ", ".join(parts)


def _buckets(plan: dict[str, Any]) -> str:
    rows = "".join(_bucket(bucket) for bucket in plan["buckets"])
    count = len(plan["buckets"])
    head = "".join(f"<th>{name}</th>" for name in ("Size", "Pictures", "Seen", "Batches", "Cut off"))
    title = f"{count} bucket{'s' if count != 1 else ''}"
    held_back = plan["validation_pictures"]
    more = f'<button type="button" data-shows="held_back">{held_back} held back</button>' if held_back else ""
    return (
        f"<details open><summary>{title}</summary><p class=hint>Choose a size to see its pictures, and what is cut off "
        f"them.</p><div class=table><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{more}"
        f"<div class=pictures></div></details>"
    )


def _bucket(bucket: dict[str, Any]) -> str:
    size = f"{bucket['width']} × {bucket['height']}"
    shows = f"bucket:{bucket['width']}x{bucket['height']}"
    return (
        f'<tr><td><button type="button" data-shows="{shows}">{size}</button></td><td>{bucket["pictures"]}</td>'
        f"<td>{bucket['views']}</td><td>{bucket['batches']}</td><td>{bucket['cropped_share']:.0%}</td></tr>"
    )


def _notes(plan: dict[str, Any]) -> str:
    kinds = [*(kind for kind in NOTES if kind in plan["notes"]), *(kind for kind in plan["notes"] if kind not in NOTES)]
    return "".join(_note(kind, len(plan["notes"][kind])) for kind in kinds if plan["notes"][kind])


def _note(kind: str, count: int) -> str:
    title = f"{count} picture{'s' if count != 1 else ''} {NOTES.get(kind, kind.replace('_', ' '))}"
    shows = html.escape(f"note:{kind}", quote=True)
    return f'<details data-opens="{shows}"><summary>{html.escape(title)}</summary><div class=pictures></div></details>'
