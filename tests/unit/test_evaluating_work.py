"""How much work an evaluation is, counted by hand."""

from __future__ import annotations

from trainer.config_io import parse_config
from trainer.evaluating.settings import GENERAL_PROMPTS, parse_evaluation
from trainer.evaluating.work import Work, work_of


def test_passes_are_those_counted_by_hand() -> None:
    config = parse_config({"validation": {"timesteps": 3}, "samples": {"prompts": ["a --s 10", "b --s 30"]}})
    work = work_of(config, parse_evaluation({"pictures": 4}), validated_pictures=7)
    probes = len(GENERAL_PROMPTS)
    assert work == Work(once=probes * 10 * 2, validation=21, drift=probes * 3 * 2, picture=40)


def test_only_what_is_measured_counts() -> None:
    work = Work(once=100, validation=1, drift=10, picture=1000)
    for metrics, passes in (
        (["validation"], 1),
        (["drift"], 10),
        (["nearest"], 3000),
        (["validation", "drift", "nearest"], 3011),
    ):
        assert work.of_checkpoint(parse_evaluation({"metrics": metrics, "pictures": 3})) == passes
