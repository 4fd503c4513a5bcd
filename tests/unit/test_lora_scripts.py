"""The scripts of LoRA rows and of the live preview: hostile names stay text, and each scope defines a name once."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.unit.test_grid_scripts import AS_HTML, TOP_LEVEL
from ui.theme import asset

SCOPES = (("dataset/dom", "merge/compare", "merge/stage"), ("dataset/dom", "loras/parts"))


@pytest.mark.parametrize("scope", SCOPES)
def test_no_two_define_the_same_name(scope: tuple[str, ...]) -> None:
    names = Counter(name for script in scope for name in TOP_LEVEL.findall(asset(f"{script}.js")))
    assert len(names) > 10 and [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("script", ["merge/compare", "merge/stage", "loras/parts"])
def test_nothing_is_put_in_as_html(script: str) -> None:
    assert not AS_HTML.search(asset(f"{script}.js"))
