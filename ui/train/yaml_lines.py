"""Where in a text of settings a wrong one stands. No Gradio."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import yaml

from trainer.errors import Problem


def with_lines(problems: Iterable[Problem], text: str) -> list[Problem]:
    """The problems, each with the line of the text that its setting stands in."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return list(problems)
    return [_with_line(problem, root) for problem in problems]


def _with_line(problem: Problem, root: yaml.Node | None) -> Problem:
    line = _line_of(root, problem.field.split(".")) if problem.field else None
    return problem if line is None else replace(problem, hint=f"{problem.hint} It is in line {line}.".strip())


def _line_of(node: yaml.Node | None, keys: list[str]) -> int | None:
    """The line, from 1, of the deepest part of a dotted name that is there."""
    line = None
    for key in keys:
        found = _inside(node, key)
        if found is None:
            break
        start, node = found
        line = start.start_mark.line + 1
    return line


def _inside(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    """What stands under a key, and where it begins."""
    if isinstance(node, yaml.MappingNode):
        return next(((name, value) for name, value in node.value if name.value == key), None)
    if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
        entry = node.value[int(key)]
        return entry, entry
    return None
