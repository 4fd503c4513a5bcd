"""Emphasis in captions, as A1111 reads it: ``(word)`` 1.1, ``((word))`` 1.21, ``[word]`` 1/1.1, ``(word:1.3)``."""

from __future__ import annotations

import re

STRONGER = 1.1

_TOKEN = re.compile(r"\\[\\()\[\]]|[(\[)\]]|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[^\\()\[\]:]+|.", re.DOTALL)


def parse_emphasis(text: str) -> list[tuple[str, float]]:
    """Split text into pieces with their weights; a backslash makes a bracket plain text.

    A bracket that is never closed reaches to the end of the text.
    """
    pieces: list[tuple[str, float]] = []
    open_brackets: list[tuple[str, int]] = []  # which bracket, and the piece after it
    for match in _TOKEN.finditer(text):
        token, weight = match.group(), match.group("weight")
        if token in ("(", "["):
            open_brackets.append((token, len(pieces)))
        elif weight is not None and open_brackets and open_brackets[-1][0] == "(":
            _scale(pieces, open_brackets.pop()[1], float(weight))
        elif token in (")", "]") and open_brackets and open_brackets[-1][0] == {")": "(", "]": "["}[token]:
            bracket, start = open_brackets.pop()
            _scale(pieces, start, STRONGER if bracket == "(" else 1 / STRONGER)
        else:
            pieces.append((token[1:] if len(token) == 2 and token[0] == "\\" else token, 1.0))
    for bracket, start in open_brackets:
        _scale(pieces, start, STRONGER if bracket == "(" else 1 / STRONGER)
    return _joined(pieces)


def _scale(pieces: list[tuple[str, float]], start: int, factor: float) -> None:
    pieces[start:] = [(text, weight * factor) for text, weight in pieces[start:]]


def _joined(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Neighbours of the same weight made one, so that no word is cut in two for the tokenizer."""
    joined: list[tuple[str, float]] = []
    for text, weight in pieces:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return joined
