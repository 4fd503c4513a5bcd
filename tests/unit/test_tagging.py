"""Which tags become the caption, and how they are written: probabilities by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainer.captioners.tagging import Category, Tag, TaggerOptions, TagWriter, mcut
from trainer.curation.caption_edits import is_face

TAGS = [
    Tag("general", "rating"),
    Tag("explicit", "rating"),
    Tag("1girl", "general"),
    Tag("red_hair", "general"),
    Tag("^_^", "general"),
    Tag("blue_background", "general"),
    Tag("miku_(vocaloid)", "character", ("vocaloid", "piapro")),
    Tag("rin", "character", ("vocaloid",)),
]
SEEN = [0.2, 0.7, 0.99, 0.6, 0.85, 0.4, 0.9, 0.5]
THRESHOLDS: dict[Category, float] = {"general": 0.35, "character": 0.85}


def written(series: bool = False, thresholds: dict[Category, float] = THRESHOLDS, **options: Any) -> str:
    writer = TagWriter(TAGS, thresholds, TaggerOptions(model="x", **options), series=series)
    return writer.caption(np.array(SEEN, np.float32))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "miku (vocaloid), 1girl, ^_^, red hair, blue background"),
        ({"character_first": False}, "1girl, miku (vocaloid), ^_^, red hair, blue background"),
        ({"spaces": False}, "miku_(vocaloid), 1girl, ^_^, red_hair, blue_background"),
        ({"escape_brackets": True}, r"miku \(vocaloid\), 1girl, ^_^, red hair, blue background"),
        ({"rating": True}, "miku (vocaloid), 1girl, ^_^, red hair, blue background, explicit"),
        ({"order": "alphabet"}, "miku (vocaloid), 1girl, ^_^, blue background, red hair"),
        ({"order": "model"}, "miku (vocaloid), 1girl, red hair, ^_^, blue background"),
        ({"max_tags": 2, "rating": True}, "miku (vocaloid), 1girl, explicit"),
        ({"blacklist": "Red hair, *_background,^_^"}, "miku (vocaloid), 1girl"),
        ({"blacklist": "red"}, "miku (vocaloid), 1girl, ^_^, red hair, blue background"),
        ({"always_first": "ohwx, red_hair"}, "ohwx, red_hair, miku (vocaloid), 1girl, ^_^, blue background"),
        ({"series": True}, "miku (vocaloid), vocaloid, piapro, 1girl, ^_^, red hair, blue background"),
        ({"series": True, "blacklist": "PIAPRO"}, "miku (vocaloid), vocaloid, 1girl, ^_^, red hair, blue background"),
        ({"thresholds": {"general": 0.7}}, "1girl, ^_^"),
        ({"thresholds": {"character": 0.3}, "series": True}, "miku (vocaloid), vocaloid, piapro, rin"),
        ({"thresholds": {"general": 1.0}}, ""),
        ({"general_mcut": True}, "miku (vocaloid), 1girl, ^_^"),
        ({"character_mcut": True}, "miku (vocaloid), 1girl, ^_^, red hair, blue background"),
    ],
)
def test_captions(options: dict[str, Any], expected: str) -> None:
    assert written(**options) == expected


def test_character_mcut_does_not_cut_among_noise() -> None:
    writer = TagWriter(TAGS, THRESHOLDS, TaggerOptions(model="x", character_mcut=True, general=False))
    noise = np.array([0, 0, 0, 0, 0, 0, 0.12, 0.01], np.float32)
    assert writer.caption(noise) == ""
    assert writer.caption(noise + np.float32(0.2)) == "miku (vocaloid)"


@pytest.mark.parametrize(
    ("probabilities", "expected"), [([0.9, 0.8, 0.3, 0.1], 0.55), ([0.1, 0.8, 0.9, 0.3], 0.55), ([0.9], 1.0), ([], 1.0)]
)
def test_mcut(probabilities: list[float], expected: float) -> None:
    assert mcut(np.array(probabilities)) == pytest.approx(expected)


@pytest.mark.parametrize("face", ["^_^", "0_0", "(o)_(o)", "+_-", "._.", "<|>_<|>", ">_o", "x_x", "||_||", "6_9"])
def test_faces_keep_their_underscore(face: str) -> None:
    assert is_face(face)


@pytest.mark.parametrize("tag", ["red_hair", "1girl", "d.va_(overwatch)", ":d", "c.c.", "u.n._spacy", "2b"])
def test_other_tags_are_no_faces(tag: str) -> None:
    assert not is_face(tag)
