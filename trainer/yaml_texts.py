"""Reading YAML that anybody may have written: plain values only, and none that fill the memory. Never torch."""

from __future__ import annotations

from typing import Any

import yaml

MOST_VALUES = 100_000
"""How many values a text may hold, each counted as often as an alias (``*name``) repeats it."""


class YamlError(ValueError):
    """Why a text cannot be read; to be put right behind ``is not valid YAML``, as `` in line 3``."""


def load_yaml(text: str) -> Any:
    """The plain values of a YAML text. Raises YamlError, also where aliases make too many or endless values of it."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _count(node, {}) > MOST_VALUES:
                raise YamlError(f", it holds more than {MOST_VALUES:,} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise YamlError(", it is nested too deeply") from error
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        raise YamlError(f" in line {mark.line + 1}" if mark else "") from error
    except YamlError:
        raise
    except (ValueError, OverflowError) as error:  # such as a date that there is not
        raise YamlError(f": {error}") from error


def _count(node: yaml.Node, counted: dict[int, int]) -> int:
    """Values in a node and below it. Raises YamlError where it contains itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    known = counted.get(id(node))
    if known is not None:
        if known == 0:
            raise YamlError(", a part of it contains itself")
        return known
    counted[id(node)] = 0  # being counted
    children = node.value if isinstance(node, yaml.SequenceNode) else [each for pair in node.value for each in pair]
    counted[id(node)] = 1 + sum(_count(child, counted) for child in children)
    return counted[id(node)]
