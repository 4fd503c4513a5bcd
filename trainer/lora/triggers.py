"""The words that call a LoRA up, found in what its file says: each with the reason, the likeliest first.

A trigger word may be named outright, stand in the name of a picture folder (kohya's ``10_ohwx woman``), or be the tag
that all pictures share. Nothing is certain but the first; so reasons are given, and several add up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_NAMED = re.compile(r"trigger|activation|trained_?words|instance_?prompt", re.IGNORECASE)
_IN_PROSE = re.compile(
    r"(?:trigger|activation)(?:\s+(?:words?|phrase|text|tags?))?\s*(?:is|are|[:=])\s*([^\n.;]{2,80})", re.I
)
_PROSE_KEYS = ("modelspec.usage_hint", "modelspec.description", "ss_training_comment")
_PROMPT_KEYS = re.compile(r"sample_?prompts?|validation_?prompts?|^prompts?$", re.IGNORECASE)
_ORDINARY = frozenset(
    [
        "1girl",
        "1boy",
        "2girls",
        "solo",
        "woman",
        "man",
        "girl",
        "boy",
        "person",
        "people",
        "character",
        "style",
        "photo",
        "picture",
        "image",
        "images",
        "img",
        "art",
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "with",
        "and",
        "looking",
        "at",
        "viewer",
        "portrait",
        "simple",
        "background",
        "white",
        "long",
        "short",
        "hair",
        "smile",
        "open",
        "mouth",
        "blush",
        "general",
        "dataset",
        "train",
        "training",
        "data",
        "concept",
        "class",
        "reg",
        "regularization",
        "lora",
        "masterpiece",
        "best",
        "quality",
        "absurdres",
        "highres",
    ]
)
"""Words that stand in many captions and folder names and call up nothing of their own."""
_RARE_LETTERS = re.compile(r"\d|q[^u]|[jqvxz][bcdfghjkmnpqrstvwxz]|hw|wx|kx|bx")
_SHARED = 0.5
"""A tag that fewer of the pictures have is hardly their subject."""
_SHOWN = 10


@dataclass
class Trigger:
    """A word or phrase that may call the LoRA up.

    Attributes:
        word: as written in the file.
        score: 0 to 1, the likelier the larger.
        reasons: why.
    """

    word: str
    score: float = 0.0
    reasons: list[str] = field(default_factory=list)


def find_triggers(metadata: Mapping[str, str]) -> list[Trigger]:
    """The likeliest trigger words by a file's metadata, best first; empty where nothing tells of any."""
    found: dict[str, Trigger] = {}
    for word, score, reason in _hints(metadata):
        clean = " ".join(word.replace("_", " ").split()).strip(" ,.'\"")
        if not 2 <= len(clean) <= 120:
            continue
        trigger = found.setdefault(clean.lower(), Trigger(clean))
        if reason not in trigger.reasons:
            trigger.reasons.append(reason)
            trigger.score = 1 - (1 - trigger.score) * (1 - score)  # as of independent witnesses
    for trigger in found.values():
        if trigger.score < 1 and _is_made_up(trigger.word):
            trigger.reasons.append("no ordinary word")
            trigger.score = 1 - (1 - trigger.score) * 0.8
        if all(word in _ORDINARY for word in trigger.word.lower().split()):
            trigger.score *= 0.2
    ranked = sorted(found.values(), key=lambda trigger: (-trigger.score, trigger.word))
    return [trigger for trigger in ranked if trigger.score >= 0.1][:_SHOWN]


def tag_counts(metadata: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """How many pictures have each tag, by folder (``ss_tag_frequency``); empty where it is not told."""
    folders = _as_json(metadata.get("ss_tag_frequency"))
    counts: dict[str, dict[str, int]] = {}
    if isinstance(folders, dict):
        for name, tags in folders.items():
            if isinstance(tags, dict):
                counts[str(name)] = {
                    str(tag).strip(): count for tag, count in tags.items() if type(count) is int and str(tag).strip()
                }
    return counts


def _hints(metadata: Mapping[str, str]) -> Iterator[tuple[str, float, str]]:
    """Word, how much it tells, reason."""
    for key, value in metadata.items():
        if _NAMED.search(key) and value.strip() not in ("", "None"):
            yield value, 0.99, f"the file names it ({key})"
    for key in _PROSE_KEYS:
        for match in _IN_PROSE.finditer(metadata.get(key, "")):
            yield match.group(1), 0.9, f"told in {key}"
    yield from _of_folders(metadata)
    yield from _of_tags(metadata)
    yield from _of_prompts(metadata)


def _of_folders(metadata: Mapping[str, str]) -> Iterator[tuple[str, float, str]]:
    names = [*_keys(_as_json(metadata.get("ss_dataset_dirs"))), *_keys(_as_json(metadata.get("ss_tag_frequency")))]
    for name in dict.fromkeys(names):
        match = re.fullmatch(r"\d+_(.+?)( \(\d+\))?", name)
        if match:
            yield match.group(1), 0.5, "the picture folder is called so"
            first = match.group(1).replace("_", " ").split()
            if len(first) > 1:
                yield first[0], 0.4, "the picture folder begins so"
    for subset in _subsets(metadata):
        for key, score in (("class_tokens", 0.5), ("caption_prefix", 0.6)):
            value = subset.get(key)
            if isinstance(value, str) and not subset.get("is_reg"):
                yield (
                    value,
                    score,
                    {"class_tokens": "class prompt of a folder", "caption_prefix": "before every caption"}[key],
                )


def _of_tags(metadata: Mapping[str, str]) -> Iterator[tuple[str, float, str]]:
    pictures = _picture_counts(metadata)
    for folder, tags in tag_counts(metadata).items():
        total = pictures.get(folder) or max(tags.values(), default=0)
        for tag, count in tags.items():
            share = min(1.0, count / total) if total > 0 else 0.0
            if share >= _SHARED:
                known = (
                    f"{count} of {total} pictures"
                    if folder in pictures
                    else f"{count} pictures, {share:.0%} of the most"
                )
                yield tag, 0.6 * share, f"tag of {known}"


def _of_prompts(metadata: Mapping[str, str]) -> Iterator[tuple[str, float, str]]:
    for key, value in metadata.items():
        if not _PROMPT_KEYS.search(key.rpartition(".")[2]):
            continue
        prompts = [prompt for prompt in _prompts(_as_json(value) or value) if prompt.strip()]
        chunks = [
            {chunk.strip().lower() for chunk in re.split(r"[,\n]", prompt)} | set(prompt.lower().split())
            for prompt in prompts
        ]
        if len(prompts) > 1:
            for word in set.intersection(*chunks):
                yield word.strip(","), 0.5, f"in all {len(prompts)} sample prompts"


def _words_of(prompt: str) -> set[str]:
    """The tags and the single words of a prompt."""
    text = prompt.lower()
    return {tag.strip() for tag in text.split(",")} | {word.strip(".,:;()") for word in text.split()}


def _prompts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [line.split(" --")[0] for line in value.splitlines() if not line.lstrip().startswith("#")]
    if isinstance(value, dict):
        value = value.get("prompt") or value.get("prompts") or list(value.values())
        return _prompts(value) if isinstance(value, str | list) else []
    if isinstance(value, list):
        found = [item.get("prompt") if isinstance(item, dict) else item for item in value]
        return [item.split(" --")[0] for item in found if isinstance(item, str)]
    return []


def _picture_counts(metadata: Mapping[str, str]) -> dict[str, int]:
    folders = _as_json(metadata.get("ss_dataset_dirs"))
    if not isinstance(folders, dict):
        return {}
    counts = {str(name): each.get("img_count") for name, each in folders.items() if isinstance(each, dict)}
    return {name: count for name, count in counts.items() if type(count) is int and count > 0}


def _subsets(metadata: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    datasets = _as_json(metadata.get("ss_datasets"))
    for dataset in datasets if isinstance(datasets, list) else []:
        subsets = dataset.get("subsets") if isinstance(dataset, dict) else None
        yield from (subset for subset in subsets or [] if isinstance(subset, dict))


def _keys(value: Any) -> Iterable[str]:
    return [str(key) for key in value] if isinstance(value, dict) else []


def _as_json(text: str | None) -> Any:
    """What a text says as JSON; None where it is none. Other tools write it: a file is not worse for a strange one."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def _is_made_up(word: str) -> bool:
    """Letters that no English word has: ``ohwx``, ``sks``, ``zw33``."""
    letters = word.lower()
    if not re.fullmatch(r"[a-z0-9]{3,12}", letters):
        return False
    return not re.search(r"[aeiouy]", letters) or _RARE_LETTERS.search(letters) is not None
