"""A grid from plain values: its cells, their settings and order, and what does not go together."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.errors import UserError
from trainer.grids.spec import Cell, GridSpec, parse_grid


def grid(**values: Any) -> GridSpec:
    return parse_grid({"base": {"prompt": "a red star"}, "x": {"kind": "seed", "values": "1-3"}, **values})


def problems(**values: Any) -> list[tuple[str, str]]:
    with pytest.raises(UserError) as caught:
        grid(**values)
    return [(problem.field, problem.message) for problem in caught.value.problems]


def test_settings_of_a_cell() -> None:
    spec = grid(y={"kind": "prompt_sr", "values": "red, blue"}, z={"kind": "prompt", "values": "a red ring\na red cat"})
    assert spec.shape == (3, 2, 2)
    settings = spec.settings_of(Cell(2, 1, 1))
    assert (settings.seed, settings.prompt, settings.count) == (3, "a blue cat", 1)
    assert spec.settings_of(Cell(0, 0, 0)) == spec.base.model_copy(update={"seed": 1, "prompt": "a red ring"})


def test_whole_prompts_are_searched_too() -> None:
    assert grid(y={"kind": "prompt_sr", "values": "cat, dog"}, z={"kind": "prompt", "values": "a cat"}).shape[1] == 2


def test_what_takes_long_is_changed_least_often() -> None:
    spec = grid(
        y={"kind": "weight", "values": "0.5, 1"},
        z={"kind": "lora", "values": "a, b"},
    )
    cells = list(spec.cells())
    assert len(cells) == len(set(cells)) == 12
    files = [spec.settings_of(cell).loras[0].path for cell in cells]
    assert files == ["a"] * 6 + ["b"] * 6
    weights = [spec.settings_of(cell).loras[0].weight for cell in cells]
    assert weights == ([0.5] * 3 + [1.0] * 3) * 2
    swapped = parse_grid({"x": {"kind": "model", "values": "demo, other"}, "y": {"kind": "seed", "values": "1-3"}})
    models = [swapped.settings_of(cell).model for cell in swapped.cells()]
    assert models == ["demo"] * 3 + ["other"] * 3


def test_values_that_do_not_go_together_are_their_cells_trouble() -> None:
    spec = grid(y={"kind": "sampler", "values": "DPM++ 2M, LCM"}, z={"kind": "schedule", "values": "Karras"})
    assert spec.settings_of(Cell(0, 0, 0)).schedule == "karras"
    with pytest.raises(UserError, match="with the sampler lcm"):
        spec.settings_of(Cell(0, 1, 0))


def test_every_problem_at_once() -> None:
    told = problems(
        base={"steps": 0, "count": 4}, x={"kind": "steps", "values": "a, b"}, y={"kind": "size", "values": "9"}, w=1
    )
    assert [field for field, _ in told] == ["w", "base.steps", "x.values", "x.values", "y.values"]


def test_what_is_missing_or_there_twice() -> None:
    assert problems(x=None) == [("x.kind", "X: nothing is chosen.")]
    assert problems(y={"kind": "seed", "values": "7"}) == [("y.kind", "Y: Seed is on X already.")]
    assert problems(y={"kind": "weight", "values": "1"})[0][0] == "y.values"
    assert problems(y={"kind": "strength", "values": "0-1 [3]"})[0][0] == "y.kind"
    assert "'cat' is in no prompt" in problems(y={"kind": "prompt_sr", "values": "cat, dog"})[0][1]


def test_too_many_cells_are_counted() -> None:
    told = problems(y={"kind": "steps", "values": "1-20"}, z={"kind": "guidance", "values": "1-20"})
    assert told == [("x.values", "3 × 20 × 20 are 1,200 pictures, at most 1,000 make a grid.")]


def test_it_comes_back_from_a_file_as_it_was() -> None:
    spec = grid(y={"kind": "guidance", "values": "1-3 (+0.5)"}, z={"kind": "clip_skip", "values": "1-2"})
    assert GridSpec.model_validate_json(spec.model_dump_json()) == spec
