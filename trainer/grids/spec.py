"""What a grid draws: settings to start from, up to three axes, and the settings of each of its cells."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from trainer.config_base import Section
from trainer.errors import Problem, UserError
from trainer.grids.axes import KINDS, Axis, AxisName, FileOf, put_value, read_axis
from trainer.pictures import PictureSettings, parse_settings

MAX_CELLS = 1000
AXES = ("x", "y", "z")


class Cell(NamedTuple):
    """A place in a grid: column, row and sheet, each counted from 0."""

    x: int
    y: int
    z: int

    @property
    def name(self) -> str:
        """``3-0-1``, of its files too."""
        return f"{self.x}-{self.y}-{self.z}"


class GridSpec(Section):
    """A grid. Made by ``parse_grid``, which looks into what goes together."""

    base: PictureSettings
    """The settings of every picture, but for what the axes change."""
    x: Axis
    """Changes from column to column."""
    y: Axis | None = None
    """Changes from row to row."""
    z: Axis | None = None
    """Changes from sheet to sheet."""

    @property
    def axes(self) -> dict[str, Axis]:
        """The axes that there are, by name."""
        return {name: axis for name, axis in (("x", self.x), ("y", self.y), ("z", self.z)) if axis is not None}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and sheets."""
        return len(self.x.values), len(self.y.values) if self.y else 1, len(self.z.values) if self.z else 1

    def cells(self) -> Iterator[Cell]:
        """Every cell, in the order of drawing: what takes longest to change is changed least often."""
        costs = [KINDS[axis.kind].cost if axis else -1 for axis in (self.x, self.y, self.z)]
        outer_first = sorted((2, 1, 0), key=lambda place: -costs[place])
        for found in itertools.product(*(range(self.shape[place]) for place in outer_first)):
            at = dict(zip(outer_first, found, strict=True))
            yield Cell(at[0], at[1], at[2])

    def settings_of(self, cell: Cell) -> PictureSettings:
        """The settings of a cell. Raises UserError where the values do not go together, as Karras and LCM."""
        values = self.base.model_dump()
        order = list(KINDS)
        chosen = [(axis, axis.values[cell["xyz".index(name)]]) for name, axis in self.axes.items()]
        for axis, value in sorted(chosen, key=lambda pair: order.index(pair[0].kind)):
            put_value(values, axis, value)
        values["loras"] = [use for use in values["loras"] if use is not None]
        return parse_settings(values)


def as_given(kind: str, text: str) -> str:
    """LoRAs and models by what was typed."""
    return text


def parse_grid(values: dict[str, Any], file_of: FileOf = as_given) -> GridSpec:
    """A grid of plain values: ``base`` and the axes. Raises UserError with one problem per wrong value, all at once."""
    problems = [
        Problem("grid.unknown_key", f"{name} is not a part of a grid.", "These are: base, x, y and z.", name)
        for name in values
        if name not in GridSpec.model_fields
    ]
    parts: dict[str, Any] = {}
    try:
        parts["base"] = parse_settings({**(values.get("base") or {}), "count": 1})
    except UserError as error:
        problems += [replace(problem, field=f"base.{problem.field}") for problem in error.problems]
    for name in AXES:
        if not values.get(name):
            continue
        try:
            parts[name] = read_axis(name, values[name], file_of)
        except UserError as error:
            problems += error.problems
    if not values.get("x"):
        hint = "Choose what changes from column to column."
        problems.append(Problem("grid.no_axis", "X: nothing is chosen.", hint, "x.kind"))
    if not problems:
        spec = GridSpec(**parts)
        problems = [*_clashes(spec.axes), *_misfits(spec), *_too_many(spec)]
    if problems:
        raise UserError.many(problems)
    return spec


def _clashes(axes: dict[str, Axis]) -> Iterator[Problem]:
    """Axes that change the same thing."""
    seen: dict[tuple[AxisName, int], str] = {}
    for name, axis in axes.items():
        first = seen.setdefault((axis.kind, axis.row), name)
        if first != name:
            message = f"{name.upper()}: {axis.title} is on {first.upper()} already."
            yield Problem("grid.twice", message, "Choose something else.", f"{name}.kind")


def _misfits(spec: GridSpec) -> Iterator[Problem]:
    """Weights of LoRAs that are not there, texts to replace that no prompt has, strengths of nothing."""
    rows = {axis.row for axis in spec.axes.values() if axis.kind == "lora"}
    prompts = [spec.base.prompt, spec.base.negative]
    prompts += [str(v) for a in spec.axes.values() if a.kind in ("prompt", "negative") for v in a.values]
    for name, axis in spec.axes.items():
        if axis.kind == "weight" and axis.row > len(spec.base.loras) and axis.row not in rows:
            message = f"{name.upper()}, {axis.title}: there is no LoRA {axis.row} in the settings."
            yield Problem("grid.no_lora", message, "Choose one, or put LoRAs on another axis.", f"{name}.values")
        if axis.kind == "prompt_sr" and not any(str(axis.values[0]) in prompt for prompt in prompts):
            message = f"{name.upper()}, {axis.title}: {axis.values[0]!r} is in no prompt."
            yield Problem("grid.not_found", message, "Begin with a text of the prompt.", f"{name}.values")
        if axis.kind == "strength" and not spec.base.init_image:
            message = f"{name.upper()}, {axis.title}: there is no picture to start from in the settings."
            yield Problem("grid.no_picture", message, "Choose one.", f"{name}.kind")


def _too_many(spec: GridSpec) -> Iterator[Problem]:
    if math.prod(spec.shape) > MAX_CELLS:
        counted = " × ".join(str(len(axis.values)) for axis in spec.axes.values())
        message = f"{counted} are {math.prod(spec.shape):,} pictures, at most {MAX_CELLS:,} make a grid."
        yield Problem("grid.cells", message, "Leave some values out.", "x.values")
