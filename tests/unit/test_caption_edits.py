"""Edits of captions: from text to text, line by line, untouched tags with their spacing."""

from __future__ import annotations

import time

import pytest

from trainer.curation import caption_edits as edits
from trainer.errors import UserError


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (edits.replace_text("cat", "dog"), "cat, catfish\ncat", "dog, dogfish\ndog"),
        (edits.replace_text("CAT", "dog", match_case=False), "Cat", "dog"),
        (edits.replace_text("a.c", "x"), "abc a.c", "abc x"),
        (edits.replace_text(r"\1", r"\2"), r"\1", r"\2"),
        (edits.replace_regex(r"^(\w+) cat", r"\1 dog"), "red cat\nblue cat", "red dog\nblue dog"),
        (edits.add_tags(["new"]), "a, b", "a, b, new"),
        (edits.add_tags(["new"]), "a,  new ,b", "a,  new ,b"),
        (edits.add_tags([" new "], "in front"), "a\nb", "new, a\nnew, b"),
        (edits.add_tags(["new"]), "", "new"),
        (edits.remove_exactly(["b"]), "a, b, c\nb", "a, c\n"),
        (edits.remove_exactly(["b"]), "a,bb , c", "a,bb , c"),
        (edits.put_trigger_first("ohwx"), "a, ohwx, b\n\nc", "ohwx, a, b\n\nohwx, c"),
        (edits.put_trigger_first("ohwx"), "  ", "ohwx"),
        (edits.put_trigger_first("ohwx"), "ohwx,  a", "ohwx,  a"),
        (edits.remove_duplicate_tags(), "a, b, a, c, b", "a, b, c"),
        (edits.prepend("photo of "), "a cat\n\na dog", "photo of a cat\n\nphoto of a dog"),
        (edits.append(", 4k"), "a cat", "a cat, 4k"),
        (edits.append(" 4k"), "", "4k"),
        (edits.around("a ", " b"), "", "a  b"),
        (edits.replace_regex(r"(?P<size>big|small) (?P<what>\w+)", r"\g<what>, \g<size>"), "big cat", "cat, big"),
        (edits.replace_regex("RED|blue", "green", match_case=False), "Red, Blue", "green, green"),
        (edits.replace_regex("(?s)one.two", "x"), "one\ntwo", "x"),
        (edits.replace_regex("(?=x)", "y"), "xx", "yxyx"),
        (edits.replace_whole_tags("cat", "dog"), "cat, catfish\nbig cat,cat", "dog, catfish\nbig cat, dog"),
        (edits.replace_whole_tags("CAT", "dog, animal", match_case=False), "a, Cat", "a, dog, animal"),
        (edits.replace_whole_tags("cat", ""), "a, cat, b", "a, b"),
        (edits.rename_tags(["a", "b"], "c"), "x, b, a, y", "x, c, y"),
        (edits.rename_tags(["a"], "c"), "c,  a", "c"),
        (edits.rename_tags(["a"], "c"), "A,  b", "A,  b"),
        (edits.add_tags(["n", "a"], "in front"), "a, b", "n, a, b"),
        (edits.add_tags(["n", "m"], "at a position", position=2), "a, b\nc", "a, n, m, b\nc, n, m"),
        (edits.add_tags(["n"], "at a position", position=9), "a", "a, n"),
        (edits.add_tags(["n"], "behind a tag", behind="a"), "a, b\nc", "a, n, b\nc, n"),
        (edits.remove_tags(["*_background", "Cat"]), "simple background, cat, catfish", "catfish"),
        (edits.remove_tags(["a.c", "(x)"]), "abc, a.c, \\(x\\)", "abc"),
        (edits.keep_tags(["blue *", "cat"]), "blue eyes, dog, cat\ndog", "blue eyes, cat\n"),
        (edits.remove_rare_tags({"a": 2, "b": 1}, 2), "a, b, c", "a"),
        (edits.move_tags(["c", "b"], 1), "a, b, c", "c, b, a"),
        (edits.move_tags(["a"], 2), "a, b, c\nb,  c", "b, a, c\nb,  c"),
        (edits.move_tags(["a"], None), "a, b, c", "b, c, a"),
        (edits.remove_duplicate_tags(any_spelling=True), "Red_Hair, cat, red hair", "Red_Hair, cat"),
        (edits.sort_tags(lambda tag: (0, tag)), "c, b, a", "a, b, c"),
        (edits.sort_tags(lambda tag: (0, tag), keep_first=1), "c, b, a", "c, a, b"),
        (edits.respell_tags(str.lower), "A Cat,  b\nx,  y", "a cat, b\nx,  y"),
        (edits.tidy(), " a  cat ,, b,\n\n c\t d \n", "a cat, b\n\nc d"),
        (edits.join_lines(", "), "a\n\n b \nc", "a, b, c"),
        (edits.split_lines("|"), "a | b|c\nd", "a\nb\nc\nd"),
        (edits.split_lines("|"), "a,  b\n", "a,  b\n"),
    ],
)
def test_edits(edit: edits.Edit, before: str, after: str) -> None:
    assert edit(before) == after


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: edits.replace_text("", "x"), "edit.nothing_to_find"),
        (lambda: edits.replace_regex("(", "x"), "edit.regex"),
        (lambda: edits.replace_regex("a", r"\1"), "edit.regex"),
        (lambda: edits.replace_regex("a", r"\g<no>"), "edit.regex"),
        (lambda: edits.add_tags(["  "]), "edit.no_tag"),
        (lambda: edits.put_trigger_first(""), "edit.no_tag"),
        (lambda: edits.add_tags([]), "edit.no_tag"),
        (lambda: edits.add_tags(["a"], "behind a tag", behind=" "), "edit.no_tag"),
        (lambda: edits.rename_tags(["a"], " "), "edit.no_tag"),
        (lambda: edits.remove_tags([" "]), "edit.no_tag"),
        (lambda: edits.split_lines(""), "edit.nothing_to_find"),
    ],
)
def test_edits_that_make_no_sense(make: object, code: str) -> None:
    with pytest.raises(UserError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.problems[0].code == code


def test_tags_are_counted_once_per_caption() -> None:
    assert edits.count_tags(["a, b, a", "b\nc", ""]) == [("b", 2), ("a", 1), ("c", 1)]


@pytest.mark.parametrize("find", ["(a+)+$", "(a|aa)+$"])
def test_an_expression_that_would_take_years_is_given_up(find: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "REGEX_SECONDS", 0.3)
    edit = edits.replace_regex(find, "x")
    started = time.thread_time()
    with pytest.raises(UserError) as caught:
        for _ in range(3):
            edit("a" * 5000 + "!")
    assert caught.value.problems[0].code == "edit.regex_slow"
    assert time.thread_time() - started < 2


def test_slow_captions_share_one_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "REGEX_SECONDS", 0.2)
    edit = edits.replace_regex("(.*)(.*)(.*)[yz]$", "")  # a few ms for each of these
    with pytest.raises(UserError, match="takes too long"):
        for _ in range(1000):
            edit("x" * 60)


@pytest.mark.parametrize(("tag", "same"), [("Red_Hair", "red hair"), (r"miku \(vocaloid\)", "Miku (vocaloid)")])
def test_spelling_does_not_count_in_a_comparison(tag: str, same: str) -> None:
    assert edits.plain_tag(tag) == edits.plain_tag(same)
    assert edits.tag_patterns([tag])(same)
    assert not edits.tag_patterns([])("anything")
