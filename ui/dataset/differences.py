"""What an edit changes in texts, word by word, a page of captions at a time. No Gradio."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from trainer.curation.steps import Change

PER_PAGE = 20
_MOST_WORDS = 600
"""Of longer texts the whole is marked: comparing takes time that grows with the square."""

Part = tuple[str, bool]
"""A piece of text, and whether it is not in the other one."""


def differences(changes: Sequence[Change], page: int) -> dict[str, Any]:
    """One page of changes as the browser shows them; ``page`` counts from 0, too large a one becomes the last."""
    pages = max(1, -(-len(changes) // PER_PAGE))
    page = max(0, min(page, pages - 1))
    rows = []
    for change in changes[page * PER_PAGE : (page + 1) * PER_PAGE]:
        before, after = marked(change.before or "", change.after or "")
        rows.append({"name": change.name, "before": before, "after": after})
    return {"count": len(changes), "page": page, "pages": pages, "first": page * PER_PAGE, "rows": rows}


def fingerprint(changes: Sequence[Change]) -> str:
    """Differs for other changes: what was looked at is what shall be done."""
    told = [(change.name, change.before, change.after) for change in changes]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def marked(before: str, after: str) -> tuple[list[Part], list[Part]]:
    """Both texts in pieces, those marked that are not in the other."""
    old, new = _words(before), _words(after)
    if max(len(old), len(new)) > _MOST_WORDS:
        return [(before, True)], [(after, True)]
    left: list[Part] = []
    right: list[Part] = []
    for kind, i1, i2, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        left.append(("".join(old[i1:i2]), kind != "equal"))
        right.append(("".join(new[j1:j2]), kind != "equal"))
    return [part for part in left if part[0]], [part for part in right if part[0]]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|\s+|[^\w\s]", text)
