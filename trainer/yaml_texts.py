"""YAML, written and read, whoever wrote it: plain values only, and none that fill the memory. Never torch."""

from __future__ import annotations

from typing import Any

import yaml

DEEPEST = 100
"""How many brackets may be open at once: each makes every sign behind it take longer to read."""
MOST_VALUES = 100_000
"""How many values a text may hold, each counted as often as an alias (``*name``) repeats it."""

_OTHER_LINE_ENDS = "\x85\u2028\u2029"


class YamlError(ValueError):
    """Why a text cannot be read; to be put right behind ``is not valid YAML``, as `` in line 3``."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which would write some line ends of Unicode as they are and read them as blanks."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """In double quotes, where such signs are escaped, if there are any."""
        style = '"' if any(sign in text for sign in _OTHER_LINE_ENDS) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which reads plain values only."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Refuse brackets in brackets without end before they are all read."""
        if self.flow_level >= DEEPEST:
            raise YamlError(", it is nested too deeply")
        super().fetch_flow_collection_start(token)


def dump_yaml(values: Any) -> str:
    """Plain values as a YAML text, in their order, that ``load_yaml`` reads back to the letter."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def load_yaml(text: str) -> Any:
    """The plain values of a YAML text. Raises YamlError, also where aliases make too many or endless values of it."""
    try:
        loader = _Loader(text)
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
