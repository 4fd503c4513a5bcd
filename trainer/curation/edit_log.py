"""Undo and redo of edits, kept in the workspace per folder of pictures.

Each edit is a file of JSON lines: a heading, then one line per step (``steps.py``). It is written before anything is
done, so an edit cut short can be undone like any other. ``position`` counts the edits in effect.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainer.curation.steps import Change, Move, Step, carry_out, take_back
from trainer.files import folder_key, write_text
from trainer.runs.store import Workspace

KEPT_EDITS = 100
"""Older edits can no longer be undone."""


@dataclass(frozen=True)
class Outcome:
    """What an edit, an undo or a redo did.

    Attributes:
        title: the edit's name; empty when there was nothing to do.
        written: files changed.
        conflicts: names of files that meanwhile hold something else, or lie elsewhere, and were left alone.
    """

    title: str
    written: int
    conflicts: tuple[str, ...] = ()


def edits_dir(workspace: Workspace, folder: Path) -> Path:
    """Where ``workspace`` keeps what was done by hand to ``folder``: the edit log, crop boxes."""
    return workspace.dir / "edits" / folder_key(folder)


class EditLog:
    """The edits of one folder.

    Args:
        state_dir: where the log is kept.
        folder: the folder of pictures; steps name files relative to it.
    """

    def __init__(self, state_dir: Path, folder: Path) -> None:
        self._dir = state_dir
        self._folder = folder.resolve()

    @classmethod
    def of(cls, workspace: Workspace, folder: Path) -> EditLog:
        """The log that ``workspace`` keeps for ``folder``."""
        return cls(edits_dir(workspace, folder), folder)

    def apply(self, title: str, steps: Iterable[Step]) -> Outcome:
        """Do each step for which everything still is as it was, and remember the edit for undo."""
        with self._lock():
            edit = self._begin(title)
            good: list[Step] = []
            conflicts = []
            for step in steps:
                good.append(step) if step.state(self._folder) == "before" else conflicts.append(step.name)
            self._append(edit, good)
            self._move_to(int(edit.stem))
            carry_out(self._folder, good)
        return Outcome(title, len(good), tuple(conflicts))

    @contextmanager
    def growing(self, title: str) -> Iterator[Callable[[Step], bool]]:
        """For a job that works picture by picture: yields a function that remembers and does one step.

        It returns False, and does nothing, when the files meanwhile are not as they were.
        """
        edit: Path | None = None

        def do(step: Step) -> bool:
            nonlocal edit
            if step.state(self._folder) != "before":
                return False
            if edit is None or not edit.exists():
                with self._lock():
                    edit = self._begin(title)
                    self._move_to(int(edit.stem))
            self._append(edit, [step])
            carry_out(self._folder, [step])
            return True

        yield do

    def undo(self) -> Outcome:
        """Take back the last edit in effect."""
        with self._lock():
            return self._go(self._position(), back=True)

    def redo(self) -> Outcome:
        """Do the last edit that was taken back again."""
        with self._lock():
            return self._go(self._position() + 1, back=False)

    def titles(self) -> tuple[str, str]:
        """What undo and redo would act on; empty where there is nothing."""
        position = self._position()
        return self._title(position), self._title(position + 1)

    def _go(self, number: int, *, back: bool) -> Outcome:
        title = self._title(number)
        if not title:
            return Outcome("", 0)
        undone = ("after", "between") if back else ("before", "between")
        wanted: list[Step] = []
        conflicts = []
        for step in self._steps(number):
            state = step.state(self._folder)
            if state in undone:
                wanted.append(step)
            elif state == "other":
                conflicts.append(step.name)
        (take_back if back else carry_out)(self._folder, wanted)
        self._move_to(number - 1 if back else number)
        return Outcome(title, len(wanted), tuple(conflicts))

    def _begin(self, title: str) -> Path:
        """Start the next edit's file; edits taken back before it are forgotten, and so are very old ones."""
        self._dir.mkdir(parents=True, exist_ok=True)
        position = self._position()
        for path in self._dir.glob("*.jsonl"):
            if int(path.stem) > position or int(path.stem) <= position - KEPT_EDITS:
                path.unlink()
        edit = self._edit_path(position + 1)
        write_text(edit, json.dumps({"title": title, "time": time.time()}, ensure_ascii=False) + "\n")
        return edit

    def _append(self, edit: Path, steps: list[Step]) -> None:
        with edit.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(_as_json(step), ensure_ascii=False) + "\n" for step in steps)
            file.flush()
            os.fsync(file.fileno())

    def _steps(self, number: int) -> list[Step]:
        """The edit's steps; the last line may be torn by a killed process, and then its step was not done."""
        data = self._edit_path(number).read_bytes()
        complete = data[: data.rfind(b"\n")].decode("utf-8")
        return [_of_json(json.loads(line)) for line in complete.split("\n")[1:]]

    def _title(self, number: int) -> str:
        try:
            with self._edit_path(number).open(encoding="utf-8") as file:
                return str(json.loads(file.readline())["title"])
        except FileNotFoundError:
            return ""

    def _edit_path(self, number: int) -> Path:
        return self._dir / f"{number:06}.jsonl"

    def _position(self) -> int:
        try:
            return int((self._dir / "position").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0

    def _move_to(self, position: int) -> None:
        write_text(self._dir / "position", str(position))

    def _lock(self) -> FileLock:
        self._dir.mkdir(parents=True, exist_ok=True)
        return FileLock(self._dir / ".lock", timeout=30)


def _as_json(step: Step) -> Any:
    if isinstance(step, Move):
        return {"source": step.source, "target": step.target, "displaced": step.displaced}
    return [step.name, step.before, step.after]


def _of_json(values: Any) -> Step:
    return Move(**values) if isinstance(values, dict) else Change(*values)
