"""What an edit would change and what the doctor found, as HTML. All text is escaped. No Gradio."""

from __future__ import annotations

import html
import time
from typing import Any

from trainer.curation.steps import Change
from ui.run_view import duration

_SHOWN_CHANGES = 5
_SHOWN_TITLE = 60
_SEVERITIES = {"error": "Problem", "warning": "Look at this", "info": "Good to know"}


def last_change_html(undo: str, redo: str) -> str:
    """What Undo would take back, or Redo do again; empty where there is nothing."""
    word, title = ("Last change", undo) if undo else ("Taken back", redo)
    short = title if len(title) <= _SHOWN_TITLE else f"{title[:_SHOWN_TITLE]}..."
    return f"{word}: {html.escape(short)}" if title else ""


def changes_html(changes: list[Change]) -> str:
    """How many captions an edit would change, and the first of them before and after."""
    count = len(changes)
    rows = "".join(
        f"<dt>{html.escape(change.name)}</dt><dd><del>{html.escape(change.before or '')}</del></dd>"
        f"<dd><ins>{html.escape(change.after or '')}</ins></dd>"
        for change in changes[:_SHOWN_CHANGES]
    )
    more = f"<p>and {count - _SHOWN_CHANGES} more</p>" if count > _SHOWN_CHANGES else ""
    told = f"{count} {'caption' if count == 1 else 'captions'} would change." if count else "Nothing would change."
    return f'<div class="changes"><p><strong>{told}</strong></p><dl>{rows}</dl>{more}</div>'


def findings_html(findings: list[dict[str, Any]], checked: float | None) -> str:
    """The doctor's findings as a list, each with a button that shows its pictures."""
    if checked is None:
        return ""
    ago = duration(max(0.0, time.time() - checked))
    if not findings:
        return f'<p class="quiet">Checked {ago} ago: nothing wrong was found.</p>'
    rows = []
    for number, finding in enumerate(findings):
        count = len(finding["paths"])
        button = f'<button type="button" data-finding="{number}">Show {count}</button>' if count else ""
        rows.append(
            f'<li class="ds-{finding["severity"]}"><span class="kind">{_SEVERITIES[finding["severity"]]}</span><span>'
            f"<strong>{html.escape(finding['message'])}</strong> {html.escape(finding['hint'])}</span>{button}</li>"
        )
    return f'<p class="quiet">Checked {ago} ago.</p><ul class="findings">{"".join(rows)}</ul>'
