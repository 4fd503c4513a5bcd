"""Caption processing against a table worked out by hand, and against what chance must look like."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from trainer.config import CaptionSettings
from trainer.data.captions import depends_on_chance, for_validation, process_caption

SEPARATED = "|||"


def processed(caption: str, seed: int = 0, **settings: Any) -> str:
    return process_caption(caption, CaptionSettings(**settings), random.Random(seed))


@pytest.mark.parametrize(
    ("caption", "settings", "expected"),
    [
        ("a dog, grass", {}, "a dog, grass"),
        ("1,000 people", {}, "1,000 people"),  # prose is left as it is
        ("  a dog \n a cat", {}, "a dog"),
        ("\n\n a dog", {}, "a dog"),
        ("", {}, ""),
        ("", {"prefix": "sks"}, "sks"),
        ("a dog", {"prefix": "sks,"}, "sks, a dog"),
        ("a dog", {"prefix": "sks", "suffix": "photo"}, "sks a dog photo"),
        ("a dog\na cat", {"suffix": "photo"}, "a dog photo"),
        ("a {red} dog", {}, "a {red} dog"),
        ("a {red} dog", {"wildcards": True}, "a red dog"),
        ("a {{red}} dog", {"wildcards": True}, "a {red} dog"),
        ("a dog", {"wildcards": True, "suffix": "{photo}"}, "a dog photo"),
        ("a ||| b,c ||| d", {}, "a, b, c, d"),
        ("a ||| b", {"keep_tokens_separator": ""}, "a ||| b"),
        ("a, b, c", {"tag_dropout": 1.0}, ""),
        ("a, b, c", {"tag_dropout": 1.0, "keep_tokens": 2}, "a, b"),
        ("a, b ||| c, d ||| e, f", {"tag_dropout": 1.0}, "a, b, e, f"),
        ("a, b ||| c, d", {"tag_dropout": 1.0, "keep_tokens": 4}, "a, b"),  # the separator wins
        ("a;b", {"tag_dropout": 1.0, "keep_tokens": 1}, "a;b"),
        ("a, b", {"dropout": 1.0}, ""),
        ("a, b", {"dropout": 1.0, "prefix": "sks"}, ""),
        ("a, b, c", {"shuffle": True, "keep_tokens": 3}, "a, b, c"),
        ("a, b, c", {"shuffle": True, "keep_tokens": 9}, "a, b, c"),
        ("(red:1.3) [dog]", {"weighted": True}, "(red:1.3) [dog]"),  # read later, by the text encoder
    ],
)
def test_table(caption: str, settings: dict[str, Any], expected: str) -> None:
    assert processed(caption, **settings) == expected


def test_shuffle_keeps_head_and_tail_and_every_tag() -> None:
    seen = Counter(processed("a, b ||| c, d, e ||| f", seed, shuffle=True) for seed in range(600))
    assert len(seen) == 6  # 3! orders of the middle
    assert min(seen.values()) > 60
    for text in seen:
        tags = text.split(", ")
        assert tags[:2] == ["a", "b"] and tags[-1] == "f" and sorted(tags[2:5]) == ["c", "d", "e"]


def test_keep_tokens_holds_the_first_tags() -> None:
    heads = {tuple(processed("a, b, c, d", seed, shuffle=True, keep_tokens=2).split(", ")[:2]) for seed in range(50)}
    assert heads == {("a", "b")}


def test_dropout_rates() -> None:
    dropped = sum(processed("a, b", seed, dropout=0.3) == "" for seed in range(2000))
    assert 540 < dropped < 660
    kept = Counter(
        tag for seed in range(2000) for tag in processed("k, a, b", seed, tag_dropout=0.25, keep_tokens=1).split(", ")
    )
    assert kept["k"] == 2000 and all(1420 < kept[tag] < 1580 for tag in "ab")


def test_wildcards_choose_evenly_and_lines_too() -> None:
    seen = Counter(processed("a {red|blue} dog\n{big|small} cat", seed, wildcards=True) for seed in range(1200))
    assert set(seen) == {"a red dog", "a blue dog", "big cat", "small cat"}
    assert min(seen.values()) > 230


def test_prefix_and_suffix_are_on_every_line() -> None:
    seen = {processed("one\ntwo\nthree", seed, wildcards=True, prefix="p", suffix="s") for seed in range(50)}
    assert seen == {"p one s", "p two s", "p three s"}


def test_the_same_chance_gives_the_same_caption() -> None:
    settings = {"shuffle": True, "tag_dropout": 0.3, "dropout": 0.1, "wildcards": True}
    first = [processed("{x|y}, b, c, d, e", seed, **settings) for seed in range(40)]
    assert first == [processed("{x|y}, b, c, d, e", seed, **settings) for seed in range(40)]
    assert len(set(first)) > 20


def test_settings_that_make_caching_useless() -> None:
    assert not depends_on_chance(CaptionSettings(dropout=0.1, prefix="a", keep_tokens=2))
    for change in ({"shuffle": True}, {"tag_dropout": 0.1}, {"wildcards": True}):
        assert depends_on_chance(CaptionSettings(**change))


def test_validation_captions_do_not_vary() -> None:
    settings = for_validation(CaptionSettings(shuffle=True, dropout=1.0, tag_dropout=1.0, prefix="sks"))
    assert {process_caption("a, b", settings, random.Random(seed)) for seed in range(20)} == {"sks a, b"}
