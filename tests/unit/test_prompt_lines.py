"""Preview prompts as lines: read as sd-scripts reads them, written so that the same comes back."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.config import Config, SamplePrompt
from trainer.config_io import parse_config
from trainer.errors import UserError
from trainer.prompt_lines import FLAGS, format_line, parse_line, parse_lines


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("a cat", {"prompt": "a cat"}),
        ("  a cat  ", {"prompt": "a cat"}),
        (
            "a cat --n blurry, bad --w 512 --h 768 --d 7 --l 7.5 --s 28 --ss euler_a",
            {
                "prompt": "a cat",
                "negative": "blurry, bad",
                "width": 512,
                "height": 768,
                "seed": 7,
                "guidance": 7.5,
                "steps": 28,
                "sampler": "euler_a",
            },
        ),
        ("--n only negative", {"prompt": "", "negative": "only negative"}),
        ("a--w 5 b", {"prompt": "a--w 5 b"}),
        ("a --cs 2 --N bad --W 64", {"prompt": "a", "clip_skip": 2, "negative": "bad", "width": 64}),
        ("a --n --w 64", {"prompt": "a", "negative": "", "width": 64}),
        ("a -- b - c --", {"prompt": "a -- b - c --"}),
        ("a --x 5 --w 64", {"prompt": "a", "--x": 5, "width": 64}),
        ("a --s many", {"prompt": "a", "steps": "many"}),
        ("a --ss K_Euler_A", {"prompt": "a", "sampler": "euler_a"}),
        ('{"prompt": "a --w 5", "seed": 3}', {"prompt": "a --w 5", "seed": 3}),
        ("{red|blue} hat", {"prompt": "{red|blue} hat"}),
    ],
)
def test_reading(line: str, values: dict[str, Any]) -> None:
    assert parse_line(line) == values


def test_empty_lines_and_comments_are_left_out() -> None:
    assert parse_lines("a\n\n  # no\n b ") == [{"prompt": "a"}, {"prompt": "b"}]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"prompt": "a cat"}, "a cat"),
        ({"prompt": "a", "guidance": 3.0, "seed": 1}, "a --d 1 --l 3"),
        ({"prompt": "a", "negative": "b", "width": 512}, "a --n b --w 512"),
        ({"prompt": "two\nlines"}, '{"prompt": "two\\nlines"}'),
        ({"prompt": "#tag"}, '{"prompt": "#tag"}'),
        ({"prompt": ""}, '{"prompt": ""}'),
        ({"prompt": "a --w 5"}, '{"prompt": "a --w 5"}'),
        ({"prompt": "a --ar 16:9"}, '{"prompt": "a --ar 16:9"}'),
        ({"prompt": "a", "clip_skip": 2, "sampler": "ddpm"}, "a --ss ddpm --cs 2"),
    ],
)
def test_writing(changes: dict[str, Any], line: str) -> None:
    defaults = SamplePrompt.model_validate({}).model_dump()
    assert format_line(defaults | changes, defaults) == line
    assert defaults | parse_line(line) == defaults | changes


def test_a_config_file_may_hold_lines() -> None:
    config = parse_config({"samples": {"prompts": ["a cat --w 512 --ss k_euler"]}})
    assert config.samples.prompts == [
        SamplePrompt.model_validate({"prompt": "a cat", "width": 512, "sampler": "euler"})
    ]
    with pytest.raises(UserError, match="steps"):
        parse_config({"samples": {"prompts": ["a --s many"]}})
    assert Config().samples.prompts == []


def test_every_unknown_flag_is_told_with_those_there_are() -> None:
    with pytest.raises(UserError) as caught:
        parse_config({"samples": {"prompts": ["a --ar 16:9 --w 64", "b", "c --s 0 --cn pose.png"]}})
    told = {problem.field: problem for problem in caught.value.problems}
    assert set(told) == {"samples.prompts.0.--ar", "samples.prompts.2.--cn", "samples.prompts.2.steps"}
    assert told["samples.prompts.0.--ar"].message == "samples.prompts.0: --ar is not a flag of prompts."
    assert all(f"--{flag} {name}" in told["samples.prompts.2.--cn"].hint for flag, name in FLAGS.items())


def test_every_setting_of_a_preview_has_a_flag() -> None:
    assert {"prompt", *FLAGS.values(), "schedule"} == set(SamplePrompt.model_fields)  # --ss tells the schedule too


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_one_flag_tells_sampler_and_schedule(sampler: str) -> None:
    values = {"prompt": "a cat", "sampler": sampler, "schedule": "uniform"}
    line = format_line(values, {"sampler": "ddim", "schedule": "model"})
    assert line == f"a cat --ss {sampler}_uniform"
    assert parse_line(line) == values
    assert parse_line("a cat --ss DPM++ 2M Karras --s 3")["schedule"] == "karras"
    assert parse_line("a cat --ss magic") == {"prompt": "a cat", "sampler": "magic"}
