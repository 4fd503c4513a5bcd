"""What an axis of a grid can change, how its values are read, and what a value does to a picture's settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from trainer.checkpoint_folders import LORA
from trainer.config_base import Section
from trainer.config_io import parse_section
from trainer.errors import Problem, UserError
from trainer.grids.values import MAX_VALUES, RANGES_IN_WORDS, read_numbers, split_lines, split_values
from trainer.pictures import LoraUse, parse_settings
from trainer.sampler_names import SAMPLER_NAMES, SCHEDULE_NAMES, read_sampler, read_schedule, sampling_of, schedules_of

AxisName = Literal[
    "model", "lora", "weight", "prompt", "prompt_sr", "negative", "seed",
    "sampler", "schedule", "steps", "guidance", "clip_skip", "size", "strength",
]  # fmt: skip
"""In the order in which values are put into the settings: a prompt before what is replaced in it."""
Value = int | float | str
FileOf = Callable[[str, str], str]
"""Given ``lora`` or ``model`` and what was typed, the file or model that is meant. Raises UserError."""

NO_LORA = "none"


@dataclass(frozen=True)
class AxisKind:
    """One thing that an axis can change.

    Attributes:
        title: what people call it.
        help: how its values are written.
        form: whole numbers, numbers, or texts: one of a list, or one a line.
        cost: how much longer it takes to change it between two pictures; the costliest is changed least often.
    """

    title: str
    help: str
    form: Literal["whole", "number", "entry", "line"]
    cost: int = 0


_NUMBERS_HELP = f"{RANGES_IN_WORDS[0].upper()}{RANGES_IN_WORDS[1:]}."
KINDS: dict[AxisName, AxisKind] = {
    "model": AxisKind("Model", "Model files, folders or Hugging Face ids.", "entry", 5),
    "lora": AxisKind("LoRA", f"LoRA files or checkpoints; `{NO_LORA}` for a picture without.", "entry", 4),
    "weight": AxisKind("LoRA weight", _NUMBERS_HELP, "number", 3),
    "prompt": AxisKind("Prompt", "Whole prompts, one a line.", "line"),
    "prompt_sr": AxisKind(
        "Prompt S/R", "Search and replace: the first text is looked for in the prompts, each takes its place.", "entry"
    ),
    "negative": AxisKind("Negative prompt", "Whole negative prompts, one a line.", "line"),
    "seed": AxisKind("Seed", _NUMBERS_HELP, "whole"),
    "sampler": AxisKind("Sampler", "By the usual names, with a schedule or without: DPM++ 2M Karras.", "entry", 1),
    "schedule": AxisKind("Schedule", "By the usual names: Karras, SGM Uniform.", "entry", 1),
    "steps": AxisKind("Steps", _NUMBERS_HELP, "whole", 1),
    "guidance": AxisKind("Guidance", _NUMBERS_HELP, "number"),
    "clip_skip": AxisKind("Clip skip", _NUMBERS_HELP, "whole"),
    "size": AxisKind("Size", "Width and height in pixels: 512x768; one number for a square.", "entry", 2),
    "strength": AxisKind("Denoising strength", f"Of a picture to start from. {_NUMBERS_HELP}", "number"),
}


class Axis(Section):
    """One axis: what it changes, and to what. Made by ``read_axis``."""

    kind: AxisName
    """What changes along the axis."""
    values: list[Value] = Field(min_length=1, max_length=MAX_VALUES)
    """The values, each once."""
    row: int = Field(1, ge=1, le=16)
    """For `lora` and `weight`: which LoRA of the settings, counted from 1."""

    @property
    def title(self) -> str:
        """What stands beside the axis."""
        title = KINDS[self.kind].title
        return f"{title} {self.row}" if self.row > 1 and self.kind in ("lora", "weight") else title

    @property
    def labels(self) -> list[str]:
        """What stands at each value."""
        several_runs = len({_run_of(value) for value in self.values}) > 1
        return [_label(self.kind, value, several_runs) for value in self.values]


def read_axis(name: str, given: Any, file_of: FileOf) -> Axis:
    """An axis of plain values, whose ``values`` are a text as people type it, or a list.

    Args:
        name: ``x``, ``y`` or ``z``, for messages.
        given: kind, values and, for LoRAs, row.
        file_of: looks up LoRAs and models.

    Raises UserError with one problem per wrong value.
    """
    if not isinstance(given, dict) or given.get("kind") not in get_args(AxisName):
        kind = given.get("kind") if isinstance(given, dict) else given
        message = f"{name.upper()}: {kind!r} is nothing that an axis can change."
        raise UserError("grid.kind", message, f"These are: {', '.join(get_args(AxisName))}.", f"{name}.kind")
    kind = KINDS[given["kind"]]
    values: list[Value] = []
    problems: list[Problem] = []
    try:
        entries = _entries(given.get("values"), kind)
    except ValueError as error:
        message = f"{name.upper()}, {kind.title}: {error}."
        raise UserError("grid.value", message, "Separate them by commas.", f"{name}.values") from error
    for entry in entries:
        try:
            values += _read(given["kind"], entry, file_of)
        except ValueError as error:
            allowed = kind.help if kind.form in ("entry", "line") else f"Write {RANGES_IN_WORDS}."
            problems.append(Problem("grid.value", f"{name.upper()}, {kind.title}: {error}.", allowed))
        except UserError as error:
            problems += [_at_axis(name, kind, problem) for problem in error.problems]
    values = list(dict.fromkeys(values))
    if not values and not problems:
        problems.append(Problem("grid.values", f"{name.upper()}, {kind.title}: no values are given.", kind.help))
    if len(values) > MAX_VALUES:
        message = f"{name.upper()}, {kind.title}: {len(values):,} values, at most {MAX_VALUES:,} are allowed."
        problems.append(Problem("grid.values", message, "Leave some out."))
    if problems:
        told = dict.fromkeys(replace(problem, field=f"{name}.values") for problem in problems)
        raise UserError.many(list(told))
    return parse_section(Axis, given | {"values": values})


def put_value(settings: dict[str, Any], axis: Axis, value: Value) -> None:
    """Change plain settings to a value of an axis. ``settings["loras"]`` may have None for a LoRA that is left out."""
    if axis.kind == "lora":
        _put_lora(settings, axis.row - 1, str(value))
    elif axis.kind == "weight":
        use = settings["loras"][axis.row - 1] if axis.row <= len(settings["loras"]) else None
        if use is not None:
            use["weight"] = value
    elif axis.kind == "prompt_sr":
        for prompt in ("prompt", "negative"):
            settings[prompt] = settings[prompt].replace(str(axis.values[0]), str(value))
    elif axis.kind == "sampler":
        settings |= sampling_of(str(value))
        if settings["schedule"] not in schedules_of(settings["sampler"]):
            settings["schedule"] = "model"  # an axis of schedules, which comes later, says otherwise
    elif axis.kind == "size":
        settings["width"], settings["height"] = map(int, str(value).split("x"))
    else:
        settings[axis.kind] = value


def _put_lora(settings: dict[str, Any], row: int, path: str) -> None:
    loras = settings["loras"]
    loras += [None] * (row + 1 - len(loras))
    weight = loras[row]["weight"] if loras[row] else 1.0
    parts = loras[row]["parts"] if loras[row] else ""
    loras[row] = None if path == NO_LORA else LoraUse(path=path, weight=weight, parts=parts).model_dump()


def _entries(given: Any, kind: AxisKind) -> list[str]:
    """What was given for the values, as single texts."""
    if isinstance(given, list):
        return [str(entry).strip() for entry in given]
    text = "" if given is None else str(given)
    return split_lines(text) if kind.form == "line" else split_values(text)


def _read(kind: AxisName, entry: str, file_of: FileOf) -> list[Value]:
    """The values that one entry stands for. Raises ValueError or UserError."""
    form = KINDS[kind].form
    if form in ("whole", "number"):
        numbers = read_numbers(entry, whole=form == "whole")
        for number in numbers:
            _check(kind, number)
        return list(numbers)
    if kind == "sampler":
        return [_sampler_name(entry)]
    if kind == "schedule":
        schedule = read_schedule(entry)
        if schedule is None:
            raise ValueError(f"{entry!r} is no schedule; these are: {', '.join(SCHEDULE_NAMES.values())}")
        return [schedule]
    if kind == "size":
        return [_size(entry)]
    if kind in ("lora", "model") and entry != NO_LORA:
        return [file_of(kind, entry)]
    return [entry]


def _check(kind: AxisName, number: float) -> None:
    """Raise UserError for a number that the settings of a picture do not allow."""
    if kind == "weight":
        parse_settings({"loras": [{"path": "any", "weight": number}]})
    else:
        parse_settings({kind: number})


def _sampler_name(entry: str) -> str:
    """Raises ValueError for a sampler that nobody knows, or a schedule that it does not follow."""
    found = read_sampler(entry)
    if found is None:
        raise ValueError(f"{entry!r} is no sampler; these are: {', '.join(SAMPLER_NAMES.values())}")
    sampler, schedule = found
    if schedule is None:
        return SAMPLER_NAMES[sampler]
    if schedule not in schedules_of(sampler):
        followed = ", ".join(SCHEDULE_NAMES[each] for each in schedules_of(sampler))
        raise ValueError(f"{entry!r}: {SAMPLER_NAMES[sampler]} follows {followed} only")
    return f"{SAMPLER_NAMES[sampler]} {SCHEDULE_NAMES[schedule]}"


def _size(entry: str) -> str:
    sides = entry.lower().replace("×", "x").replace(" ", "").split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ValueError(f"{entry!r} is no size")
    width, height = int(sides[0]), int(sides[-1])
    parse_settings({"width": width, "height": height})
    return f"{width}x{height}"


def _at_axis(name: str, kind: AxisKind, problem: Problem) -> Problem:
    """A problem of a picture's settings, told as one of the axis."""
    told = problem.message.removeprefix(f"{problem.field}: ")
    return replace(problem, message=f"{name.upper()}, {kind.title}: {told}")


def _label(kind: AxisName, value: Value, several_runs: bool) -> str:
    if kind == "schedule":
        return SCHEDULE_NAMES[value]  # type: ignore[index]
    if kind == "model":
        return Path(str(value)).name or str(value)
    if kind != "lora":
        return f"{value:g}" if isinstance(value, float) else str(value)
    path = Path(str(value))
    if path.name != LORA:
        return path.stem
    step = path.parent.name.removeprefix("step-").lstrip("0") or "0"
    return f"{_run_of(value)}, step {step}" if several_runs else f"step {step}"


def _run_of(value: Value) -> str:
    """The folder of the run that a checkpoint's LoRA is of; empty for other values."""
    path = Path(str(value))
    return path.parents[2].name if path.name == LORA and len(path.parents) > 2 else ""
