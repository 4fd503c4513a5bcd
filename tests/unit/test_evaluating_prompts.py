"""Which prompts are drawn and which must not drift."""

from __future__ import annotations

from trainer.config_io import parse_config
from trainer.evaluating.prompts import prompts_for_drift, prompts_to_draw
from trainer.evaluating.settings import GENERAL_PROMPTS, parse_evaluation


def test_preview_prompts_come_in_turn_with_seeds_counting_up() -> None:
    config = parse_config({"samples": {"prompts": ["a --d 5 --s 3", "b --d 9"]}})
    drawn = prompts_to_draw(config, parse_evaluation({"pictures": 5}), ["caption"])
    assert [(each.prompt, each.seed) for each in drawn] == [("a", 5), ("b", 9), ("a", 6), ("b", 10), ("a", 7)]
    assert [each.steps for each in drawn[:2]] == [3, 20]
    assert {each.steps for each in prompts_to_draw(config, parse_evaluation({"steps": 7}), [])} == {7}


def test_without_prompts_captions_stand_in_evenly_spread() -> None:
    captions = ["a", "a", "b", "c", "d"]
    drawn = prompts_to_draw(parse_config({}), parse_evaluation({"pictures": 2}), captions)
    assert [each.prompt for each in drawn] == ["a", "c"]
    more = prompts_to_draw(parse_config({}), parse_evaluation({"pictures": 6}), captions)
    assert [each.prompt for each in more] == ["a", "b", "c", "d", "a", "b"] and more[4].seed == more[0].seed + 1
    assert [each.prompt for each in prompts_to_draw(parse_config({}), parse_evaluation({"pictures": 1}), [])] == [""]


def test_drift_is_looked_for_without_the_trigger() -> None:
    prompts = ["SKS dog, on a beach", "photo of sks, smiling", "sks", "a plain house"]
    config = parse_config({"output": {"trigger": "sks"}, "samples": {"prompts": prompts}})
    found = prompts_for_drift(config, parse_evaluation({}))
    assert found[: len(GENERAL_PROMPTS)] == list(GENERAL_PROMPTS)
    assert found[len(GENERAL_PROMPTS) :] == ["dog, on a beach", "photo of, smiling", "a plain house"]
    assert prompts_for_drift(parse_config({}), parse_evaluation({})) == list(GENERAL_PROMPTS)
    assert prompts_for_drift(config, parse_evaluation({"drift_prompts": ["x", "x", "y"]})) == ["x", "y"]
