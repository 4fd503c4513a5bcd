"""What the page's scripts may send along with an event, read off the page's source."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PAGE_SOURCES = Path(__file__).resolve().parents[2] / "ui"
READERS_OF_EVENTS = ("sent", "_texts")
"""Functions of the page that are given the names of what a script sends."""


@cache
def names_sent() -> frozenset[str]:
    """The names, without ``path``: Gradio takes that for a file, and refuses all but its own."""
    names = set()
    for path in PAGE_SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in READERS_OF_EVENTS:
                names |= {each.value for each in node.args if isinstance(each, ast.Constant)}
    return frozenset(map(str, names)) - {"path"}
