"""When settings have an effect: conditions hold on plain values, and name settings and choices that exist."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.config import Config
from trainer.config_relevance import Condition, Relevance, is_empty, is_one_of, is_set
from ui.fields import CONFIG_FIELDS, Field

BY_NAME = {field.name: field for field in CONFIG_FIELDS}
CONDITIONAL = [field for field in CONFIG_FIELDS if field.relevant is not None]
BOTH, EITHER = is_set("a") & is_one_of("b", 1, 2), is_set("a") | is_set("b")


@pytest.mark.parametrize(
    ("relevant", "config", "unmet"),
    [
        (is_set("a"), {"a": 1}, []),
        (is_set("a"), {"a": 0}, ["a"]),
        (is_set("a"), {}, ["a"]),
        (is_empty("a"), {"a": None}, []),
        (is_empty("a"), {"a": "x"}, ["a"]),
        (is_one_of("a.b", "x", "y"), {"a": {"b": "y"}}, []),
        (is_one_of("a.b", "x", "y"), {"a": {"b": "z"}}, ["a.b"]),
        (is_one_of("a.b", "x"), {"a": "not a section"}, ["a.b"]),
        (is_set("l.*.on"), {"l": [{"on": False}, {"on": True}]}, []),
        (is_set("l.*.on"), {"l": []}, ["l.*.on"]),
        (BOTH, {"a": 1, "b": 2}, []),
        (BOTH, {"a": 0, "b": 3}, ["a", "b"]),
        (EITHER, {"a": 0, "b": 5}, []),
        (EITHER, {"a": 0, "b": 0}, ["a", "b"]),
        (EITHER & is_empty("c"), {"b": 1, "c": 1}, ["c"]),
        (BOTH | is_set("c"), {"c": True}, []),
    ],
)
def test_what_is_in_the_way(relevant: Relevance, config: dict[str, Any], unmet: list[str]) -> None:
    assert [condition.field for condition in relevant.unmet(config)] == unmet
    assert relevant.holds(config) == (not unmet)


@pytest.mark.parametrize(
    ("relevant", "words"),
    [
        (is_set("a.b"), "`a.b` is set"),
        (is_empty("a"), "`a` is not set"),
        (is_one_of("a", "x"), "`a` is `x`"),
        (is_one_of("a", "x", "no", False), "`a` is `x`, `'no'` or `false`"),
        (BOTH | is_set("c"), "(`a` is set and `b` is `1` or `2`) or `c` is set"),
        (EITHER & is_empty("c"), "(`a` is set or `b` is set) and `c` is not set"),
        (EITHER | is_empty("c"), "`a` is set or `b` is set or `c` is not set"),
    ],
)
def test_conditions_in_words(relevant: Relevance, words: str) -> None:
    assert relevant.words() == words


def conditions(field: Field) -> list[Condition]:
    assert field.relevant is not None
    return list(field.relevant.conditions())


@pytest.mark.parametrize("field", CONDITIONAL, ids=lambda field: field.name)
def test_conditions_name_settings_and_choices_that_exist(field: Field) -> None:
    for condition in conditions(field):
        assert condition.field != field.name
        if "*" in condition.field:
            assert condition.field.partition(".*.")[0] in BY_NAME
            continue
        assert set(condition.values) <= set(BY_NAME[condition.field].choices)


def unmet_by(values: dict[str, Any]) -> set[str]:
    plain = Config.model_validate(values).model_dump(mode="json")
    return {field.name for field in CONDITIONAL if field.relevant is not None and not field.relevant.holds(plain)}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"train": {"epochs": 3}}, {"train.max_steps"}),
        ({"train": {"lr_scheduler": "constant"}}, {"train.lr_decay_steps", "train.lr_min_ratio"}),
        ({"dataset": {"buckets": {"enabled": False}}}, {"dataset.buckets.step", "dataset.buckets.upscale"}),
        ({"lora": {"type": "lokr"}}, {"lora.rank_stabilized", "train.loraplus_lr_ratio"}),
    ],
)
def test_choices_make_other_settings_idle(values: dict[str, Any], names: set[str]) -> None:
    assert unmet_by(values) - unmet_by({}) == names


def test_one_of_two_rhythms_counts() -> None:
    assert "validation.every_steps" not in unmet_by({"validation": {"split": 0.1}})
    assert "validation.every_steps" in unmet_by({"validation": {"split": 0.1, "every_epochs": 1}})


def test_what_the_config_refuses_together_is_not_offered_together() -> None:
    """Each of these is refused beside its default surroundings, so the form leaves it out there."""
    refused = {
        "train.lr_num_cycles": 2, "train.lr_power": 2, "train.optimizer_class": "a.B", "loss.unmasked_weight": 0.1,
        "loss.huber_schedule": "snr", "loss.logit_mean": 1, "loss.logit_std": 2, "loss.mode_scale": 1,
        "lora.lokr_factor": 4, "loss.adaptive_noise_scale": 0.1, "output.keep_best": True,
        "validation.early_stop_patience": 2,
    }  # fmt: skip
    for name, value in refused.items():
        section, _, key = name.partition(".")
        with pytest.raises(ValueError):
            Config.model_validate({section: {key: value}})
    assert set(refused) <= unmet_by({})
