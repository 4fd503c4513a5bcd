"""From a chatting model's answer to a caption."""

from __future__ import annotations

import pytest

from trainer.captioners.answers import caption_of


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A dog on a beach.", "A dog on a beach."),
        ("  A dog.\n\nIt runs.\n", "A dog.\n\nIt runs."),
        ("Sure, here is a description of the image:\n\nA dog on a beach.", "A dog on a beach."),
        ("Sure! Here's a caption for the picture: a dog", "a dog"),
        ("Certainly. Here are the tags: 1girl, solo", "1girl, solo"),
        ("**Caption:** A dog.", "A dog."),
        ("Description: a dog", "a dog"),
        ('"A dog on a beach."', "A dog on a beach."),
        ("“A dog.”", "A dog."),
        ("The image shows a dog on a beach.", "A dog on a beach."),
        ("This photograph depicts two cats. They sleep.", "Two cats. They sleep."),
        ("Here is a dog.", "Here is a dog."),
        ("Surely a dog.", "Surely a dog."),
        ("Okapi in a zoo.", "Okapi in a zoo."),
        ("The image of a saint on a wall.", "The image of a saint on a wall."),
        ("Sure:", "Sure:"),
        ("<think>What do I see?\nA dog.</think>\nA dog on a beach.", "A dog on a beach."),
        ("", ""),
    ],
)
def test_introductions_are_left_out(answer: str, expected: str) -> None:
    assert caption_of(answer, cut_off=False, strip_preamble=True) == expected


@pytest.mark.parametrize("answer", ["The image shows a dog.", "Sure, here is a caption: a dog", '"A dog."'])
def test_they_stay_where_that_is_asked_for(answer: str) -> None:
    assert caption_of(answer, cut_off=False, strip_preamble=False) == answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A dog runs. It is bro", "A dog runs."),
        ("A dog runs. It is 2.5 met", "A dog runs."),
        ('He says "Run!" and th', 'He says "Run!"'),
        ("1girl, solo, long_ha", "1girl, solo"),
        ("A dog runs along the be", "A dog runs along the be"),
    ],
)
def test_what_was_cut_off_ends_with_something_whole(answer: str, expected: str) -> None:
    assert caption_of(answer, cut_off=True, strip_preamble=True) == expected
    assert caption_of(answer, cut_off=False, strip_preamble=True) == answer
