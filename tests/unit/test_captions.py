"""Caption processing against a table worked out by hand, and against what chance must look like."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from trainer.config import CaptionSettings
from trainer.data.captions import BEGINNING, Moment, caption_forms, for_validation, process_caption

SEPARATED = "|||"


def processed(caption: str, seed: int = 0, moment: Moment = BEGINNING, **settings: Any) -> str:
    return process_caption(caption, CaptionSettings(**settings), random.Random(seed), moment)


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
        ("a;;;b, c", {"secondary_separator": ";;;"}, "a,b, c"),
        ("k, a;;;b, c", {"secondary_separator": ";;;", "tag_dropout": 1.0, "keep_tokens": 2}, "k, a,b"),
        ("a;b;c", {"separator": ";", "tag_dropout": 1.0, "keep_tokens": 2}, "a, b"),
        ("a.b ||| c", {"separator": ".", "secondary_separator": "|"}, "a, b, c"),
        ("x{a|b}", {"prefix": "{{", "suffix": "}}"}, "{{ x{a|b} }}"),  # braces mean nothing without wildcards
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


@pytest.mark.parametrize(("every", "empty"), [(0, []), (1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [2, 5]), (7, [])])
def test_every_nth_epoch_goes_without_captions(every: int, empty: list[int]) -> None:
    """sd-scripts counts epochs from 1 and drops those that n divides."""
    found = [processed("a, b", moment=Moment(epoch), dropout_every_n_epochs=every) for epoch in range(6)]
    assert found == ["" if epoch in empty else "a, b" for epoch in range(6)]


@pytest.mark.parametrize(
    ("steps", "least", "lengths"),
    [
        (4, 1, [1, 2, 3, 4, 5, 5]),
        (4, 0, [0, 1, 2, 3, 5, 5]),  # floor(step * 5 / 4): 0, 1, 2, 3
        (3, 2, [2, 3, 4, 5, 5, 5]),
        (0.4, 1, [1, 2, 3, 4, 5, 5]),  # of ten steps: the same as 4
        (4, 9, [5, 5, 5, 5, 5, 5]),
        (0.05, 1, [5, 5, 5, 5, 5, 5]),  # less than a step
    ],
)
def test_tags_come_in_one_after_another(steps: float, least: int, lengths: list[int]) -> None:
    settings = {"token_warmup_step": steps, "token_warmup_min": least, "keep_tokens": 1}
    tags = ["k", *"abcde"]
    for step, count in enumerate(lengths):
        assert processed(", ".join(tags), moment=Moment(0, step, 10), **settings) == ", ".join(tags[: count + 1])
        shuffled = processed(", ".join(tags), moment=Moment(0, step, 10), shuffle=True, **settings)
        assert sorted(shuffled.split(", ")) == sorted(tags[: count + 1])  # cut first, shuffled then


def test_dropout_comes_before_everything_else() -> None:
    moment = Moment(1, 0, 10)
    everything = {"prefix": "p", "wildcards": True, "shuffle": True, "token_warmup_step": 5, "keep_tokens": 1}
    assert processed("{a|b}, c", 3, moment, dropout_every_n_epochs=2, **everything) == ""


FORMS = [
    ("one\ntwo", {}, {"one"}),
    ("one\ntwo", {"wildcards": True}, {"one", "two"}),
    ("a {red|blue} {x|y} dog\ncat", {"wildcards": True, "dropout": 0.1, "prefix": "p"}, {
        "p a red x dog", "p a red y dog", "p a blue x dog", "p a blue y dog", "p cat", "",
    }),
    ("a {{b}} ||| c", {"wildcards": True}, {"a {b}, c"}),
    ("{a|a}", {"wildcards": True}, {"a"}),
    ("a", {"dropout_every_n_epochs": 3}, {"a", ""}),
    ("", {"suffix": "{s|t};x", "wildcards": True, "secondary_separator": ";"}, {"s,x", "t,x"}),
]  # fmt: skip


@pytest.mark.parametrize(("caption", "settings", "expected"), FORMS)
def test_forms_are_what_chance_can_make(caption: str, settings: dict[str, Any], expected: set[str]) -> None:
    found = caption_forms(caption, CaptionSettings(**settings), 64)
    assert found is not None and len(found) == len(set(found)) and set(found) == expected
    seen = {processed(caption, seed, Moment(seed % 3), **settings) for seed in range(400)}
    assert seen == expected


def test_what_cannot_be_listed_is_not() -> None:
    for change in ({"shuffle": True}, {"tag_dropout": 0.1}, {"token_warmup_step": 5}):
        assert caption_forms("a, b", CaptionSettings(**change), 64) is None
    many = "{a|b}" * 40  # a million million: counted, not made
    assert caption_forms(many, CaptionSettings(wildcards=True), 64) is None
    assert caption_forms(many, CaptionSettings(), 64) == [many]


def test_validation_captions_do_not_vary() -> None:
    varied = CaptionSettings(shuffle=True, dropout=1.0, tag_dropout=1.0, prefix="sks", dropout_every_n_epochs=1)
    settings = for_validation(varied.model_copy(update={"token_warmup_step": 9}))
    assert {process_caption("a, b", settings, random.Random(seed)) for seed in range(20)} == {"sks a, b"}
