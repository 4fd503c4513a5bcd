"""Near spellings of tags: what is marked, and what must not be."""

from __future__ import annotations

import random
import string
import time

import pytest

from trainer.curation.tag_spelling import near_spellings


@pytest.mark.parametrize(
    ("counts", "near"),
    [
        ({"blue eyes": 5, "Blue Eyes": 1, "blue_eyes": 2, "blue eye": 1},
         {"Blue Eyes": "blue eyes", "blue_eyes": "blue eyes", "blue eye": "blue eyes"}),
        ({"smile": 9, "smlie": 1, "smle": 2, "smiile": 1, "snile": 1},
         {"smlie": "smile", "smle": "smile", "smiile": "smile", "snile": "smile"}),
        ({"glasses": 3, "glass": 1, "box": 1, "boxes": 3}, {"glass": "glasses", "box": "boxes"}),
        ({"1girl": 9, "2girls": 3, "3girls": 1}, {}),
        ({"hat": 9, "cat": 1, "dress": 3, "address": 1}, {}),
        ({"blond hair": 4, "blonde hair": 4}, {}),
        ({"miku \\(vocaloid\\)": 3, "miku (vocaloid)": 1}, {"miku (vocaloid)": "miku \\(vocaloid\\)"}),
        ({"long-sleeves": 1, "long sleeves": 7}, {"long-sleeves": "long sleeves"}),
        ({"": 1, "s": 2, "^_^": 3}, {}),
    ],
)  # fmt: skip
def test_what_looks_like_another_tag(counts: dict[str, int], near: dict[str, str]) -> None:
    assert near_spellings(counts) == near


def test_the_most_frequent_spelling_of_a_chain_is_named() -> None:
    counts = {"background": 9, "backgroundd": 3, "Backgrounddd": 1}
    assert near_spellings(counts) == {"backgroundd": "background", "Backgrounddd": "background"}


def test_all_pairs_of_one_letter_are_found() -> None:
    """Against comparing each with each by the definition of the distance."""
    draw = random.Random(7)
    words = {"".join(draw.choices("abc", k=draw.randint(5, 7))) for _ in range(150)}
    counts = {word: 2 * number + 1 for number, word in enumerate(sorted(words))}
    near = near_spellings(counts)
    for word in words:
        closer = [other for other in words if counts[other] > counts[word] and _distance_one(word, other)]
        assert (word in near) == bool(closer), word


def _distance_one(one: str, other: str) -> bool:
    edits = {one[:at] + one[at + 1 :] for at in range(len(one))}
    edits |= {one[:at] + letter + one[at:] for at in range(len(one) + 1) for letter in "abc"}
    edits |= {one[:at] + letter + one[at + 1 :] for at in range(len(one)) for letter in "abc"}
    edits |= {one[:at] + one[at + 1] + one[at] + one[at + 2 :] for at in range(len(one) - 1)}
    return other in edits


def test_twenty_thousand_tags_take_little_work() -> None:
    draw = random.Random(1)
    tags = {"".join(draw.choices(string.ascii_lowercase + " ", k=draw.randint(4, 24))) for _ in range(20_000)}
    started = time.process_time()
    near_spellings({tag: number for number, tag in enumerate(tags)})
    assert time.process_time() - started < 8  # of CPU; about 1 was measured
