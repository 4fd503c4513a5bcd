"""The page's one timer: handlers joined into one event."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from ui.page import Page, due, joined

SKIP = object()


def test_each_handler_gets_its_inputs_and_fills_its_outputs() -> None:
    page = Page()
    page.poll(lambda a, b: [a + b], ["a", "b"], ["sum"])  # type: ignore[list-item]
    page.poll(lambda: None, [], ["x", "y"])  # type: ignore[list-item]
    page.poll(lambda c: [c, c], ["c"], ["c1", "c2"])  # type: ignore[list-item]
    assert joined(page.pollers, lambda: SKIP)(1, 2, 3) == [3, SKIP, SKIP, 3, 3]


@pytest.mark.parametrize("broken", [lambda: 1 / 0, lambda: ["too", "many"]])
def test_one_that_fails_does_not_stop_the_others(broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    page = Page()
    page.poll(broken, [], ["x"])  # type: ignore[list-item]
    page.poll(lambda: ["fine"], [], ["y"])  # type: ignore[list-item]
    with caplog.at_level(logging.ERROR, "lora_atelier"):
        assert joined(page.pollers, lambda: SKIP)() == [SKIP, "fine"]
    assert caplog.records


def test_those_with_something_new_are_named() -> None:
    page = Page()
    page.poll(lambda a: [a] if a else None, ["a"], ["x"])  # type: ignore[list-item]
    page.poll(lambda: 1 / 0, [], ["y"])  # type: ignore[list-item,arg-type,return-value]
    page.poll(lambda b: [b] if b else None, ["b"], ["z"])  # type: ignore[list-item]
    held = {"a": "", "b": "new"}

    def numbers(tab: str) -> list[int]:
        return [number for number, _ in due(page.pollers, tab, held.__getitem__, lambda _: None, SKIP)]  # type: ignore[arg-type]

    assert numbers("runs") == [2]
    page.tab = "runs"
    page.poll(lambda a: [a, a], ["b"], ["p", "q"])  # type: ignore[list-item]
    assert numbers("runs") == [2, 3]
    assert numbers("train") == [2]


@pytest.mark.parametrize(
    ("values", "news"),
    [
        (["seen", {"run": "a"}, SKIP], [("key of seen", "seen"), ("key of chart", {"run": "a"})]),
        (["seen", SKIP, SKIP], [("key of seen", "seen")]),
        (["seen", SKIP, "a label"], None),  # a button is no script
        (["seen", {"__type__": "update", "visible": False}, SKIP], None),
    ],
)
def test_news_are_told_where_all_of_them_are_for_scripts(values: list[Any], news: Any) -> None:
    page = Page()
    page.poll(lambda: values, [], ["seen", "chart", "button"])  # type: ignore[list-item]
    keys = {"seen": "key of seen", "chart": "key of chart"}
    assert due(page.pollers, "", str, keys.get, SKIP) == [(0, news)]  # type: ignore[arg-type]
