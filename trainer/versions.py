"""Versions of the files that outlive the program that wrote them.

Such a file says the version of its format under ``version``; one that says none is of version 1. A change that older
values would not survive (a name gone or changed, another meaning) is a function more among the format's ``steps``.
The steps are taken whenever a file is read; the file itself stays as it is. What is only added needs no step, but a
default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.errors import UserError

Step = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes the values of one version those of the next, and leaves what it is given as it is."""


@dataclass(frozen=True)
class FileFormat:
    """A kind of file, and how its versions follow from one another.

    Attributes:
        code: the first part of its problem's code: ``run`` for ``run.newer``.
        name: what messages call such a file.
        steps: the first makes values of version 1 those of version 2, and so on.
    """

    code: str
    name: str
    steps: tuple[Step, ...] = ()

    @property
    def version(self) -> int:
        """The version that is written, and the last one that is read."""
        return 1 + len(self.steps)

    @property
    def newer(self) -> str:
        """The code of the problem that a file is of a later version."""
        return f"{self.code}.newer"

    def read(self, values: Any) -> Any:
        """What was read from a file, as one of the present version would hold it; ``values`` stays as it is.

        What is no mapping, and a version that is no whole number from 1, is given back for its model to refuse.

        Raises UserError for a later version than this program knows.
        """
        if not isinstance(values, dict):
            return values
        version = values.get("version", 1)
        if type(version) is not int or version < 1:
            return values
        if version > self.version:
            message = f"version: {version} of {self.name} was written by a newer LoRA Atelier; "
            message += f"this one reads up to {self.version}."
            raise UserError(self.newer, message, "Update the program.", "version")
        for step in self.steps[version - 1 :]:
            values = step(values)
        return values | {"version": self.version}


def _all_parts_of_a_state(state: dict[str, Any]) -> dict[str, Any]:
    """Not all states of version 1 say which optimizer made them and how validation went; then it is not known."""
    return {"made_by": {}, "validation": None, **state}


def _what_was_trained_on(state: dict[str, Any]) -> dict[str, Any]:
    """States of version 2 do not say what pictures and captions there were."""
    return {"contents": {}, **state}


CONFIG = FileFormat("config", "the config")
RUN = FileFormat("run", "the run")
CHECKPOINT = FileFormat("checkpoint", "the checkpoint")
TRAINING_STATE = FileFormat("checkpoint", "the checkpoint's state", (_all_parts_of_a_state, _what_was_trained_on))
PICTURE = FileFormat("picture", "the picture")
GRID = FileFormat("grid", "the grid")
EDIT = FileFormat("edit", "the edit")
FORMATS = (CONFIG, RUN, CHECKPOINT, TRAINING_STATE, PICTURE, GRID, EDIT)
