"""A model's fields as options of a command, and back."""

from __future__ import annotations

import argparse

import pytest

from trainer.captioners.wording import Wording
from trainer.commands.model_arguments import add_fields, as_options, given_fields
from trainer.errors import UserError


def parsed(*options: str) -> Wording:
    parser = argparse.ArgumentParser()
    add_fields(parser, Wording)
    return given_fields(parser.parse_args(options), Wording)


@pytest.mark.parametrize(
    "wording",
    [
        Wording(),
        Wording(trigger="-x", prefix="--lower", lower=True, longest=40, unit="tokens"),
        Wording(remove=["The image shows", "a=b"], replace=["woman = ohwx"], keep_lines=True),
    ],
)
def test_options_give_the_model_back(wording: Wording) -> None:
    assert parsed(*as_options(wording)) == wording


def test_wrong_values_are_told_together() -> None:
    with pytest.raises(UserError) as caught:
        parsed("--longest=many", "--unit=pages")
    assert {problem.field for problem in caught.value.problems} == {"longest", "unit"}
