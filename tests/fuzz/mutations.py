"""Broken files made of good ones: bytes, lines, and values of JSON and YAML. The same number gives the same file."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import yaml

ODD_TEXTS = (
    "", " ", "\n", "\0", "\ufeff", "\u2028", "é", "日本", "😀", "\r\n", "\t", '"', "'", "\\", ",", ":", ": ", "#",
    "-", "- ", "{", "}", "[", "]", "|", ">", "((", "))", "nan", "NaN", "inf", "1e999", "-1", "0", "9" * 40,
    "true", "null", "~", "2026-13-45", "0x10", "1_000", "*a", "&a", "<<: *a", "!!binary x",
    "!!python/object:os.system", "$(id)", "%s%n", "../..", "/etc/passwd", "C:\\x", "x" * 700, "[" * 3000,
    "{" * 3000, "a: " * 300, "<lora:a:1>", "Steps: 20, ", "Negative prompt:", "version: 99", '"version": 99',
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3.5, -0.0, 1e308, 2**31, 2**63, -(2**70), float("nan"), float("inf"), "",
    "x", "1", "inf", "x" * 700, "\ud800", "../../x", "/x", [], [[]], [None], [1, 2], {}, {"a": 1},
    {"version": 2},
)  # fmt: skip


def mutated(source: random.Random, samples: Sequence[bytes]) -> bytes:
    """A sample with one to four things changed; seldom as it is."""
    data = source.choice(samples)
    for _ in range(source.choice((0, 1, 1, 1, 2, 3))):
        way = source.choice((_bytes, _bytes, _texts, _lines, _splice, _values, _values, _values))
        data = way(source, data, samples)
    return data[:300_000]


def _bytes(source: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(source.randint(1, 6)):
        if changed:
            changed[source.randrange(len(changed))] = source.randrange(256)
    if source.random() < 0.3:
        del changed[source.randrange(len(changed) + 1) :]
    return bytes(changed)


def _texts(source: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    """Odd text put in, perhaps in the place of some."""
    begin = source.randrange(len(data) + 1)
    end = min(len(data), begin + source.choice((0, 0, 1, 5, 30)))
    return data[:begin] + source.choice(ODD_TEXTS).encode() * source.choice((1, 1, 1, 3)) + data[end:]


def _lines(source: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    """A line gone, doubled, moved, or further in or out."""
    lines = data.split(b"\n")
    number = source.randrange(len(lines))
    what = source.randrange(5)
    if what == 0:
        del lines[number]
    elif what == 1:
        lines.insert(number, lines[number])
    elif what == 2:
        lines.insert(source.randrange(len(lines)), lines.pop(number))
    elif what == 3:
        lines[number] = b"  " + lines[number]
    else:
        lines[number] = lines[number].lstrip()
    return b"\n".join(lines)


def _splice(source: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    """The beginning of one and the end of another."""
    other = source.choice(samples)
    return data[: source.randrange(len(data) + 1)] + other[source.randrange(len(other) + 1) :]


def _values(source: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    """A value, a name or an entry of JSON, JSON lines or YAML; bytes where it is none of them."""
    lines = data.split(b"\n")
    number = source.randrange(len(lines))
    for text, put_back in (
        (data, lambda made: made),
        (lines[number], lambda made: b"\n".join([*lines[:number], made, *lines[number + 1 :]])),
    ):
        try:
            value = json.loads(text) if text[:1] in (b"{", b"[") else _small_yaml(source, text)
        except (ValueError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(value, dict | list):
            try:
                return put_back(json.dumps(_changed(source, value), default=str).encode())
            except (ValueError, RecursionError):
                continue
    return _bytes(source, data, samples)


def _small_yaml(source: random.Random, text: bytes) -> Any:
    if b": " not in text or len(text) > 6000 or source.random() < 0.6:
        raise ValueError("it takes long, so it is not always done")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders


def _changed(source: random.Random, value: Any) -> Any:
    """Something changed here or further in."""
    if not isinstance(value, dict | list) or not value or source.random() < 0.15:
        return source.choice(ODD_VALUES)
    place = source.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if source.random() < 0.6:
        value[place] = _changed(source, value[place])
        return value
    what = source.randrange(4)
    if what == 0:
        value[place] = source.choice(ODD_VALUES)
    elif what == 1:
        value.pop(place)
    elif isinstance(value, dict) and what == 2:
        value[str(place) + source.choice(ODD_TEXTS)] = value.pop(place)
    elif isinstance(value, dict):
        value[source.choice(ODD_TEXTS)] = value[place]
    else:
        value.insert(place, source.choice(ODD_VALUES))
    return value
