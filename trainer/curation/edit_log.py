"""Undo and redo of caption edits, kept in the workspace per folder of pictures.

Each edit is a file of JSON lines: a heading, then one line per caption with its text before and after. It is written
before the captions are, so an edit cut short can be undone like any other. ``position`` counts the edits in effect.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from trainer.curation.caption_edits import Change
from trainer.data.caption_files import plain_newlines, read_caption, write_caption, write_captions
from trainer.files import write_text
from trainer.runs.store import Workspace

KEPT_EDITS = 100
"""Older edits can no longer be undone."""


@dataclass(frozen=True)
class Outcome:
    """What an edit, an undo or a redo did.

    Attributes:
        title: the edit's name; empty when there was nothing to do.
        written: captions changed.
        conflicts: names of captions that meanwhile hold something else, and were left alone.
    """

    title: str
    written: int
    conflicts: tuple[str, ...] = ()


class EditLog:
    """The edits of one folder's captions.

    Args:
        state_dir: where the log is kept.
        folder: the folder of pictures; changes name caption files relative to it.
    """

    def __init__(self, state_dir: Path, folder: Path) -> None:
        self._dir = state_dir
        self._folder = folder.resolve()

    @classmethod
    def of(cls, workspace: Workspace, folder: Path) -> EditLog:
        """The log that ``workspace`` keeps for ``folder``."""
        digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        return cls(workspace.dir / "edits" / digest, folder)

    def apply(self, title: str, changes: Iterable[Change]) -> Outcome:
        """Write each change whose caption still is as it was, and remember the edit for undo."""
        with self._lock():
            edit = self._begin(title)
            good, conflicts = [], []
            for change in changes:
                good.append(change) if self._holds(change.name, change.before) else conflicts.append(change.name)
            self._append(edit, good)
            self._move_to(int(edit.stem))
            write_captions({self._folder / change.name: change.after for change in good})
        return Outcome(title, len(good), tuple(conflicts))

    @contextmanager
    def growing(self, title: str) -> Iterator[Callable[[Change], bool]]:
        """For a job that writes captions one by one: yields a function that remembers and writes one change.

        It returns False, and writes nothing, when the caption meanwhile holds something else.
        """
        edit: Path | None = None

        def write(change: Change) -> bool:
            nonlocal edit
            if not self._holds(change.name, change.before):
                return False
            if edit is None or not edit.exists():
                with self._lock():
                    edit = self._begin(title)
                    self._move_to(int(edit.stem))
            self._append(edit, [change])
            write_caption(self._folder / change.name, change.after)
            return True

        yield write

    def undo(self) -> Outcome:
        """Take back the last edit in effect."""
        with self._lock():
            return self._step(self._position(), -1)

    def redo(self) -> Outcome:
        """Do the last edit that was taken back again."""
        with self._lock():
            return self._step(self._position() + 1, 0)

    def titles(self) -> tuple[str, str]:
        """What undo and redo would act on; empty where there is nothing."""
        position = self._position()
        return self._title(position), self._title(position + 1)

    def _step(self, number: int, offset: int) -> Outcome:
        title = self._title(number)
        if not title:
            return Outcome("", 0)
        wanted: dict[Path, str | None] = {}
        conflicts = []
        for change in self._changes(number):
            old, new = (change.after, change.before) if offset else (change.before, change.after)
            if self._holds(change.name, new):
                continue
            if self._holds(change.name, old):
                wanted[self._folder / change.name] = new
            else:
                conflicts.append(change.name)
        write_captions(wanted)
        self._move_to(number + offset)
        return Outcome(title, len(wanted), tuple(conflicts))

    def _holds(self, name: str, text: str | None) -> bool:
        return read_caption(self._folder / name) == (None if text is None else plain_newlines(text))

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

    def _append(self, edit: Path, changes: list[Change]) -> None:
        lines = [json.dumps([change.name, change.before, change.after], ensure_ascii=False) for change in changes]
        with edit.open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)

    def _changes(self, number: int) -> list[Change]:
        """The edit's changes; the last line may be torn by a killed process, and then its caption was not written."""
        data = self._edit_path(number).read_bytes()
        complete = data[: data.rfind(b"\n")].decode("utf-8")
        return [Change(*json.loads(line)) for line in complete.split("\n")[1:]]

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
