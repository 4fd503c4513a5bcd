"""Tags that look like slips of the pen: rare, and nearly the same as one that is usual in the folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.curation.caption_edits import plain_tag
from trainer.curation.doctor.report import Findings
from trainer.curation.tag_spelling import near_spellings

_LONGEST = 40
_USUAL = 3
"""Captions that must hold a tag before another one, seen once, counts as its misspelling."""


def odd_spellings(tags: Mapping[Path, Sequence[str]], found: Findings) -> None:
    """Note tags written in two ways, at the pictures that have the rarer one.

    Case and underscores apart the same: whatever the counts. Otherwise near: only where the tag stands in a single
    caption and the usual one in several. Parts of sentences are not looked at.
    """
    owners: dict[str, list[Path]] = defaultdict(list)
    for path, some in tags.items():
        for tag in set(some):
            if len(tag) <= _LONGEST:
                owners[tag].append(path)
    counts = {tag: len(paths) for tag, paths in owners.items()}
    for tag, usual in sorted(near_spellings(counts).items()):
        same = plain_tag(tag) == plain_tag(usual)
        if not same and (counts[tag] > 1 or counts[usual] < _USUAL):
            continue
        message = f"The tag {tag!r} stands in {counts[tag]}, the like {usual!r} in {counts[usual]} captions."
        hint = "If both mean the same, use one of them."
        found.add("tag.spelling", "info", owners[tag], message, hint, values={"tag": tag, "usual": usual})
