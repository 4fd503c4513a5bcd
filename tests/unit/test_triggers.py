"""Trigger words from what LoRA files say of themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainer.lora.triggers import find_triggers, tag_counts


def found(**metadata: Any) -> list[str]:
    texts = {
        key.replace("__", "."): each if isinstance(each, str) else json.dumps(each) for key, each in metadata.items()
    }
    return [trigger.word for trigger in find_triggers(texts)]


TAGS = {"10_ohwx woman": {"ohwx": 20, "1girl": 20, "smile": 12, "red hair": 3}}
DIRS = {"10_ohwx woman": {"n_repeats": 10, "img_count": 20}}


@pytest.mark.parametrize(
    ("metadata", "first"),
    [
        ({"modelspec__trigger_phrase": "ohwx fox", "ss_tag_frequency": {"a": {"tree": 5}}}, "ohwx fox"),
        ({"ss_trigger_words": "zwx"}, "zwx"),
        ({"modelspec__usage_hint": "Weight 0.8. Trigger word: sks cat. Have fun"}, "sks cat"),
        ({"ss_training_comment": "trigger words are blue house style"}, "blue house style"),
        ({"ss_tag_frequency": TAGS, "ss_dataset_dirs": DIRS}, "ohwx"),
        ({"ss_tag_frequency": {"1_trigger": {"p3rs0n": 1}}}, "p3rs0n"),
        ({"ss_dataset_dirs": {"20_sks dog": {"n_repeats": 20, "img_count": 5}}}, "sks"),
        ({"ss_datasets": [{"subsets": [{"class_tokens": "hollow lantern", "is_reg": False}]}]}, "hollow lantern"),
        ({"ss_sample_prompts": "a zwx tower --w 512\n# note\nzwx at night, stars --s 20"}, "zwx"),
        ({"sample_prompts": [{"prompt": "kmno, fox"}, {"prompt": "kmno, tree"}]}, "kmno"),
    ],
)
def test_the_likeliest_comes_first(metadata: dict[str, Any], first: str) -> None:
    assert found(**metadata)[0] == first


def test_ordinary_tags_rank_behind_and_rare_ones_are_left_out() -> None:
    ranked = found(ss_tag_frequency=TAGS, ss_dataset_dirs=DIRS)
    assert ranked.index("ohwx") < ranked.index("1girl") and "red hair" not in ranked
    (best, *_) = find_triggers({"ss_tag_frequency": json.dumps(TAGS), "ss_dataset_dirs": json.dumps(DIRS)})
    assert "tag of 20 of 20 pictures" in best.reasons and 0.5 < best.score < 1
    assert any("folder begins" in reason for reason in best.reasons)


def test_regularization_pictures_name_nothing() -> None:
    assert found(ss_datasets=[{"subsets": [{"class_tokens": "zwx", "is_reg": True}]}]) == []


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"a": 1}', '{"a": {"b": "c"}}', '{"a": {"b": null}}', "[" * 100_000])
def test_strange_metadata_tells_nothing_and_breaks_nothing(text: str) -> None:
    keys = ("ss_tag_frequency", "ss_dataset_dirs", "ss_datasets", "sample_prompts_list")
    assert find_triggers(dict.fromkeys(keys, text)) == []
    assert not any(tag_counts({"ss_tag_frequency": text}).values())
    find_triggers({"sample_prompts": text, "ss_sample_prompts": text})
