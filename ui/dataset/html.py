"""The last change, as HTML. All text is escaped. No Gradio."""

from __future__ import annotations

import html

_SHOWN_TITLE = 60


def last_change_html(undo: str, redo: str) -> str:
    """What Undo would take back, or Redo do again; empty where there is nothing."""
    word, title = ("Last change", undo) if undo else ("Taken back", redo)
    short = title if len(title) <= _SHOWN_TITLE else f"{title[:_SHOWN_TITLE]}..."
    return f"{word}: {html.escape(short)}" if title else ""
