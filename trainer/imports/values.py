"""Values as other programs write them: numbers as text, ``"True"``, empty text for nothing, lists as text."""

from __future__ import annotations

import ast
import math
import re
from pathlib import PureWindowsPath
from typing import Any

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_SECRET = re.compile(r"(?i)(api_?key|secret|password|(^|_|\.)(auth_?)?token$)")
_ARGUMENT = re.compile(r"(?:^|[\s,]+)['\"]?([A-Za-z_]\w*)\s*=")
_LONGEST_SHOWN = 90


def is_blank(value: Any) -> bool:
    """Whether a value says nothing: null, empty text, ``"None"``, an empty list."""
    return value is None or value in ("", [], {}) or (isinstance(value, str) and value.strip() in ("", "None", "null"))


def is_off(value: Any) -> bool:
    """Whether a value leaves something off: blank, false or 0."""
    return is_blank(value) or value is False or number(value) == 0 or flag(value) is False


def number(value: Any) -> float | None:
    """A finite number, also one written as text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except ValueError:
        return None
    return read if math.isfinite(read) else None


def whole(value: Any) -> int | None:
    """A whole number, also ``"8"`` and ``8.0``; None where it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # exact, where a float would round
    read = number(value)
    return int(read) if read is not None and read.is_integer() else None


def flag(value: Any) -> bool | None:
    """True or false, also as text or as 1 and 0; None where it is neither."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


def text(value: Any) -> str:
    """A value as text without blanks around it."""
    return str(value).strip()


def file_stem(path: str) -> str:
    """The name of a file without its folders and its ending, whichever system the path is from."""
    return PureWindowsPath(path).stem


def run_name(given: str) -> str:
    """A name that works as a file name, and as a run's: signs that do not are replaced."""
    return re.sub(r'[/\\:*?"<>|\x00-\x1f]+', "-", given).strip().lstrip(".").strip()[:80].strip() or "imported"


def literal(value: str) -> Any:
    """A Python literal such as ``(0.9, 0.99)`` or ``True``; text that is none stays text. Tuples become lists."""
    try:
        read = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return list(read) if isinstance(read, tuple | set) else read


def arguments(value: Any) -> dict[str, str]:
    """``key=value`` arguments: a list of them, or one text with blanks or commas between them.

    A value may hold commas and blanks itself, as in ``betas=(0.9, 0.99)``; it ends where the next ``key=`` begins.
    """
    joined = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    found = list(_ARGUMENT.finditer(joined))
    places = [*(each.start() for each in found), len(joined)]
    texts = [joined[each.end() : end] for each, end in zip(found, places[1:], strict=True)]
    return {each[1]: text.strip().strip("'\"").strip() for each, text in zip(found, texts, strict=True)}


def numbers(value: Any) -> list[float] | None:
    """Numbers of a list, or of a text with commas; None where one of them is none."""
    parts = value if isinstance(value, list) else str(value).strip("[]() ").split(",")
    read = [number(part) for part in parts if not is_blank(part)]
    return [each for each in read if each is not None] if read and None not in read else None


def shown(key: str, value: Any) -> str:
    """A value for the report: short, and never a secret."""
    if _SECRET.search(key) and not is_off(value):
        return "(not shown)"
    written = "(empty)" if is_blank(value) else value if isinstance(value, str) else _plain(value)
    one_line = " ".join(written.split())
    return one_line if len(one_line) <= _LONGEST_SHOWN else one_line[: _LONGEST_SHOWN - 3] + "..."


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
