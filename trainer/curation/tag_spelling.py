"""Tags that are probably meant to be the same: other letter case, underscores, plural, or one letter off."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from trainer.curation.caption_edits import plain_tag

_SHORTEST_FOR_TYPOS = 5
"""In shorter words one letter makes another word: hat, cat."""


def near_spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """For tags that look like another, more frequent one: that one.

    Args:
        counts: how many captions hold each tag.
    """
    groups: dict[str, list[str]] = {}
    for tag in sorted(counts, key=lambda tag: (-counts[tag], tag)):
        groups.setdefault(_folded(tag), []).append(tag)
    near = {tag: group[0] for group in groups.values() for tag in group[1:]}
    totals = {key: sum(counts[tag] for tag in group) for key, group in groups.items()}
    for one, other in _typos(totals):
        rare, frequent = sorted((one, other), key=lambda key: (totals[key], key))
        if totals[rare] < totals[frequent]:
            near.update({tag: groups[frequent][0] for tag in groups[rare] if tag not in near})
    return {tag: _last(tag, near) for tag in near}


def _folded(tag: str) -> str:
    """What is the same for spellings that differ in case, underscores, hyphens, spaces or plural."""
    words = re.split(r"[\s-]+", plain_tag(tag).strip())
    return " ".join(_singular(word) for word in words)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _typos(keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs that one wrong, missing, added or swapped letter makes equal.

    Such pairs share a text that is one of them, or one of them without a letter, so only texts that several share
    are compared, not each with each.
    """
    shared: dict[str, list[str]] = {}
    for key in keys:
        if len(key) >= _SHORTEST_FOR_TYPOS - 1:
            for text in {key, *(key[:at] + key[at + 1 :] for at in range(len(key)))}:
                shared.setdefault(text, []).append(key)
    pairs = {(one, other) for group in shared.values() for one in group for other in group if one < other}
    return (pair for pair in sorted(pairs) if max(map(len, pair)) >= _SHORTEST_FOR_TYPOS and _one_letter_off(*pair))


def _one_letter_off(one: str, other: str) -> bool:
    """Whether they differ by one letter; digits make other tags: 1girl, 2girls."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(one), len(other)) - start and one[-1 - end] == other[-1 - end]:
        end += 1
    left, right = one[start : len(one) - end], other[start : len(other) - end]
    letters = all(character.isalpha() for character in left + right)
    swapped = len(left) == len(right) == 2 and left == right[::-1]
    return letters and (swapped or max(len(left), len(right)) == 1)


def _last(tag: str, near: Mapping[str, str]) -> str:
    seen = {tag}
    while near[tag] in near and near[tag] not in seen:
        tag = near[tag]
        seen.add(tag)
    return near[tag]
