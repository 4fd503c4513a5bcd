"""What can be asked of an evaluation."""

from __future__ import annotations

import pytest

from trainer.errors import UserError
from trainer.evaluating.settings import METRICS, parse_evaluation


def test_a_model_adds_similarity_and_what_is_not_given_is_as_by_default() -> None:
    assert parse_evaluation({}).metrics == ["validation", "drift", "nearest"]
    assert parse_evaluation({"model": " clip ", "steps": None}).metrics == list(METRICS)
    assert parse_evaluation({"model": "clip"}).model == "clip"
    assert parse_evaluation({"model": "clip", "metrics": ["drift"]}).metrics == ["drift"]
    assert parse_evaluation({"metrics": ["nearest", "drift", "nearest"]}).metrics == ["drift", "nearest"]
    assert not parse_evaluation({"metrics": ["validation", "drift"]}).draws


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"metrics": ["similarity"]}, "", "similarity needs a model"),
        ({"metrics": ["beauty"]}, "metrics.0", "allowed is 'validation'"),
        ({"metrics": []}, "metrics", ""),
        ({"pictures": 0}, "pictures", "1 or more"),
    ],
)
def test_wrong_settings_are_told(values, field: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_evaluation(values)
    problem = caught.value.problems[0]
    assert problem.field == field and message in problem.message
