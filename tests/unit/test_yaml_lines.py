"""Problems of a text are told with the line that they stand in."""

from __future__ import annotations

import pytest

from trainer.config_io import parse_config, parse_yaml
from trainer.errors import Problem, UserError
from ui.train.yaml_lines import with_lines

TEXT = """\
name: x
train:
  # a comment
  learning_rate: fast
  seed: 1
dataset: {sources: [{path: /a},
  {path: /b, repeats: 0}]}
lora:
  rnak: 3
"""


def test_each_wrong_setting_is_told_with_its_line() -> None:
    with pytest.raises(UserError) as caught:
        parse_config(parse_yaml(TEXT, "This text"))
    lines = {problem.field: problem.hint.rpartition("line ")[2] for problem in with_lines(caught.value.problems, TEXT)}
    assert lines == {"train.learning_rate": "4.", "dataset.sources.1.repeats": "7.", "lora.rnak": "9."}


def test_what_stands_nowhere_in_the_text_has_no_line() -> None:
    missing = Problem("x", "Something is missing.", "Add it.", "loss.type")
    assert with_lines([missing], TEXT) == [missing]
    assert with_lines([missing], "a: [") == [missing]
    assert with_lines([missing], "") == [missing]


def test_broken_yaml_is_told_with_its_line() -> None:
    with pytest.raises(UserError, match="This text is not valid YAML in line 2"):
        parse_yaml("name: x\n  lora: 1\n", "This text")
