"""The scripts of the picture grid: they share one scope, and put hostile text on the page only as text."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from ui.dataset.board import GRID_SCRIPTS
from ui.theme import asset

TOP_LEVEL = re.compile(r"^(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)
AS_HTML = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(")


def script(name: str) -> str:
    return asset(f"dataset/{name}.js")


def test_no_two_define_the_same_name() -> None:
    """A second ``function`` of a name would replace the first in silence."""
    names = Counter(name for each in GRID_SCRIPTS for name in TOP_LEVEL.findall(script(each)))
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("name", GRID_SCRIPTS)
def test_nothing_is_put_in_as_html(name: str) -> None:
    assert not AS_HTML.search(script(name))
