"""Tags that look like slips of the pen: rare, and nearly the same as one that is usual in the folder."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trainer.curation.doctor.report import Findings

_LEAST_LETTERS = 5
_LONGEST = 40
_USUAL = 3
"""Captions that must hold a tag before a tag that resembles it counts as misspelt."""


def odd_spellings(tags: Mapping[Path, Sequence[str]], found: Findings) -> None:
    """Note each tag that is written in two ways, at the pictures that have the rarer one.

    Case, blanks and underscores apart the same: whatever the counts. One letter more, less, other or two exchanged:
    only where the tag stands in one caption and the usual one in three and more. Digits must agree (1girl, 2girls).
    """
    owners: dict[str, list[Path]] = defaultdict(list)
    for path, some in tags.items():
        for tag in set(some):
            if len(tag) <= _LONGEST:
                owners[tag].append(path)
    counts = Counter({tag: len(paths) for tag, paths in owners.items()})
    for tag, usual in sorted(_resembling(counts).items()):
        message = f"The tag {tag!r} stands in {counts[tag]}, the like {usual!r} in {counts[usual]} captions."
        hint = "If both mean the same, use one of them."
        values = {"tag": tag, "usual": usual}
        found.add("tag.spelling", "info", owners[tag], message, hint, values=values)


def _resembling(counts: Counter[str]) -> dict[str, str]:
    """Rarer tags, each with the usual one that it resembles."""
    by_plain: dict[str, list[str]] = defaultdict(list)
    for tag in sorted(counts, key=lambda tag: (-counts[tag], tag)):
        by_plain[_plain(tag)].append(tag)
    found = {tag: spellings[0] for spellings in by_plain.values() for tag in spellings[1:]}
    usual_by_part: dict[str, str] = {}
    for plain, (first, *_) in by_plain.items():
        if counts[first] >= _USUAL and len(plain) >= _LEAST_LETTERS:
            for part in _one_less(plain):
                usual_by_part.setdefault(part, first)
    for plain, (first, *_) in by_plain.items():
        if counts[first] == 1 and len(plain) >= _LEAST_LETTERS:
            near = (usual_by_part[part] for part in _one_less(plain) if part in usual_by_part)
            usual = next((other for other in near if _one_slip(plain, _plain(other))), None)
            if usual is not None:
                found[first] = usual
    return found


def _plain(tag: str) -> str:
    return re.sub(r"[\s_]+", " ", tag).strip().casefold()


def _one_less(text: str) -> Iterator[str]:
    """The text, and the text without each of its letters: two texts within one slip of each other share one."""
    yield text
    for index in range(len(text)):
        yield text[:index] + text[index + 1 :]


def _one_slip(one: str, other: str) -> bool:
    """Whether a letter more, less or other, or two exchanged neighbours, is all that differs; not a digit or an s."""
    if re.sub(r"\D", "", one) != re.sub(r"\D", "", other) or one.rstrip("s") == other.rstrip("s"):
        return False
    if abs(len(one) - len(other)) == 1:
        return True  # they share a text of one letter less, so the longer one has one letter more
    differing = [index for index, (left, right) in enumerate(zip(one, other, strict=True)) if left != right]
    if len(differing) == 1:
        return True
    first, second = differing[0], differing[-1]
    return len(differing) == 2 and second == first + 1 and one[first] == other[second] and one[second] == other[first]
