"""What an edit would change, as HTML. All text is escaped. No Gradio."""

from __future__ import annotations

import html

from trainer.curation.steps import Change

_SHOWN_CHANGES = 5
_SHOWN_TITLE = 60


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
