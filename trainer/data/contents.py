"""What a training set holds, for a run that goes on later: it says what has changed since. Never torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.data.epoch import Entry

Contents = dict[str, list[str]]
"""By a picture's key: hashes of its file and of its caption, and its name."""

_HASH_DIGITS = 16
_NAMED = 3


def contents_of(entries: Iterable[Entry], digests: dict[Path, str]) -> Contents:
    """Of all pictures whose files' SHA-256 are given."""
    pictures = {entry.picture.key: entry.picture for entry in entries if entry.picture.path in digests}
    return {
        key: [
            digests[picture.path][:_HASH_DIGITS],
            hashlib.sha256(picture.caption.encode()).hexdigest()[:_HASH_DIGITS],
            picture.path.name,
        ]
        for key, picture in sorted(pictures.items())
    }


def differences(before: Contents, now: Contents) -> str:
    """``1 changed picture (a.png), 2 new pictures (b.png, c.png)``; empty where there are none, or nothing is known."""
    if not before or not now:
        return ""
    both = before.keys() & now.keys()
    kinds = {
        "changed picture": [now[key][2] for key in both if before[key][0] != now[key][0]],
        "changed caption": [now[key][2] for key in both if before[key][1] != now[key][1]],
        "new picture": [now[key][2] for key in now.keys() - before.keys()],
        "missing picture": [before[key][2] for key in before.keys() - now.keys()],
    }
    return ", ".join(_counted(kinds))


def _counted(kinds: dict[str, list[str]]) -> Iterator[str]:
    for what, names in kinds.items():
        if names:
            more = ", ..." if len(names) > _NAMED else ""
            yield f"{len(names)} {what}{'s'[: len(names) != 1]} ({', '.join(sorted(names)[:_NAMED])}{more})"
