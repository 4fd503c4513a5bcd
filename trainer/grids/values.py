"""The values of an axis as people type them: ``0.4, 0.8``, ``1-5``, ``1-10 (+2)``, ``0-1 [5]``.

Lists and ranges are written as in A1111's X/Y/Z plot (stable-diffusion-webui, ``scripts/xyz_grid.py``): ``(+2)`` is the
step, ``[5]`` is how many, spread evenly.
"""

from __future__ import annotations

import csv
import io
import re
from decimal import Decimal

MAX_VALUES = 1000
RANGES_IN_WORDS = "numbers and ranges: 1-5, 1-10 (+2) in steps of 2, 0-1 [5] for five of them"
_NUMBER = r"[+-]?\d*\.?\d+"
_RANGE = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})\s*(?:\(\s*({_NUMBER})\s*\)|\[\s*(\d+)\s*\])?")
_DIGITS = 6


def split_values(text: str) -> list[str]:
    """The entries of a text: separated by commas or new lines; quotes keep commas in an entry.

    Raises ValueError with what is wrong in words.
    """
    try:
        rows = list(csv.reader(io.StringIO(text, newline=None), skipinitialspace=True))
    except csv.Error as error:  # an entry of more than 128 KiB
        raise ValueError("one of the values is far too long") from error
    return [entry.strip() for row in rows for entry in row if entry.strip()]


def split_lines(text: str) -> list[str]:
    """The entries of a text that has one a line, such as whole prompts, which have commas of their own."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_numbers(entry: str, *, whole: bool) -> list[int] | list[float]:
    """The numbers that one entry stands for: itself, or those of a range, both ends included where the step allows.

    Args:
        entry: ``0.8``, ``1-5``, ``1-10 (+2)`` or ``0-1 [5]``; ranges may fall: ``5-1``.
        whole: only whole numbers are allowed. Evenly spread ones lose what is behind the point, as in A1111.

    Raises ValueError with what is wrong in words.
    """
    match = _RANGE.fullmatch(entry)
    if match is None:
        return _typed([_number(entry)], whole, entry)
    first, last = Decimal(match[1]), Decimal(match[2])
    if match[4]:
        found = _spread(first, last, int(match[4]))
        return _typed([Decimal(int(value)) for value in found] if whole else found, whole, entry)
    return _typed(_stepped(first, last, match[3]), whole, entry)


def _number(entry: str) -> Decimal:
    if not re.fullmatch(_NUMBER, entry):
        raise ValueError(f"{entry!r} is not a number or a range")
    return Decimal(entry)


def _stepped(first: Decimal, last: Decimal, step_text: str | None) -> list[Decimal]:
    rising = last >= first
    step = Decimal(step_text) if step_text else Decimal(1 if rising else -1)
    if step == 0 or (step > 0) != rising:
        raise ValueError(f"steps of {step} do not lead from {first} to {last}")
    count = int((last - first) / step) + 1
    _check_count(count)
    return [first + step * index for index in range(count)]


def _spread(first: Decimal, last: Decimal, count: int) -> list[Decimal]:
    if count < 1:
        raise ValueError("a range needs at least [1] value")
    _check_count(count)
    return [first + (last - first) * index / max(1, count - 1) for index in range(count)]


def _check_count(count: int) -> None:
    if count > MAX_VALUES:
        raise ValueError(f"that are {count:,} values, at most {MAX_VALUES:,} are allowed")


def _typed(values: list[Decimal], whole: bool, entry: str) -> list[int] | list[float]:
    if not whole:
        return [round(float(value), _DIGITS) for value in values]
    if any(value != int(value) for value in values):
        raise ValueError(f"{entry!r} is not in whole numbers")
    return [int(value) for value in values]
