"""The file of one edit: a heading, then a line of JSON for each step.

The files lie in the workspace, and are read as what anybody may have changed: a step concerns files of its folder, or
the edit is refused.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trainer.curation.steps import Change, Move, Step
from trainer.errors import UserError
from trainer.versions import EDIT


class Heading(BaseModel):
    """The first line. ``time`` in seconds since 1970; ``by`` as given to ``EditLog.apply``."""

    model_config = ConfigDict(allow_inf_nan=False)

    title: str
    time: float
    by: str = ""


def heading_line(title: str, by: str) -> str:
    """The heading of an edit that is begun now."""
    return _line({"version": EDIT.version, **Heading(title=title, time=time.time(), by=by).model_dump()})


def step_line(step: Step) -> str:
    """The line of a step."""
    if isinstance(step, Move):
        return _line({"source": step.source, "target": step.target, "displaced": step.displaced})
    original = [] if step.original is None else [base64.b64encode(step.original).decode("ascii")]
    return _line([step.name, step.before, step.after, *original])


def read_heading(path: Path) -> Heading | None:
    """The heading; None where it is damaged. Raises FileNotFoundError."""
    try:
        with path.open(encoding="utf-8") as file:
            return Heading.model_validate(json.loads(file.readline()))
    except (ValueError, RecursionError, ValidationError):
        return None


def read_steps(path: Path) -> list[Step]:
    """The edit's steps; the last line may be torn by a killed process, and then its step was not done.

    Raises UserError for an edit of a newer program, and for one that is damaged or names files outside of its folder.
    """
    data = path.read_bytes()
    try:
        heading, *steps = map(json.loads, data[: data.rfind(b"\n")].decode("utf-8").split("\n"))
        return [_step(values) for values in EDIT.read({**heading, "steps": steps})["steps"]]
    except (ValueError, TypeError, RecursionError) as error:
        message = f"The notes on this edit, {path}, are damaged: {error}."
        raise UserError("edit.damaged", message, "It cannot be taken back or done again.") from error


def _line(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def _step(values: Any) -> Step:
    if isinstance(values, dict):
        if values.get("source") is None or values.get("target") is None:
            raise ValueError("a file is moved from nowhere or to nowhere")
        step: Step = Move(**values)
    else:
        name, before, after, *original = values
        if not all(text is None or isinstance(text, str) for text in (before, after)):
            raise ValueError("a caption is no text")
        step = Change(name, before, after, base64.b64decode(original[0]) if original else None)
    if not all(map(_is_inside, step.touched)):
        raise ValueError("a step leads out of the folder")
    return step


def _is_inside(name: Any) -> bool:
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    readings = (PurePosixPath(name), PureWindowsPath(name))
    return not any(path.anchor or ".." in path.parts for path in readings)
