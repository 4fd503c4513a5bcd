"""Captions that are not written yet: drafts to be looked over, and the note from which a job goes on.

A file of JSON lines in the workspace, only ever appended to while a job and the page both work on it: the last line of
a picture counts, and half a line that a killed process left behind does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from trainer.curation.steps import Change
from trainer.data.caption_files import plain_newlines, read_caption
from trainer.errors import UserError
from trainer.files import end_torn_line, folder_key, write_text
from trainer.runs.store import Workspace

Decision = Literal["open", "accepted", "rejected"]
DraftState = Literal["open", "accepted", "rejected", "conflict", "written"]


@dataclass(frozen=True)
class Draft:
    """A new caption for one picture.

    Attributes:
        name: the picture, relative to the folder.
        file: its caption file, relative to the folder.
        before: the caption file's text when the draft was made; None for no file.
        old: the picture's caption then; it may come from a table.
        text: the new caption, the whole of it.
        run: which run of which job made it, see ``DraftFile.run``.
        decision: what somebody who looked at it said.
    """

    name: str
    file: str
    before: str | None
    old: str
    text: str
    run: str = ""
    decision: Decision = "open"

    def decided(self, decision: Decision) -> Draft:
        """The draft with another decision."""
        return replace(self, decision=decision)

    @property
    def change(self) -> Change:
        """What writing it does."""
        return Change(self.file, self.before, self.text)

    def state_in(self, folder: Path) -> DraftState:
        """The state, by what the caption file holds now."""
        return self.state(read_caption(folder / self.file))

    def state(self, held: str | None) -> DraftState:
        """The decision, unless the caption file holds the draft already, or something else than it did."""
        if held == plain_newlines(self.text):
            return "written"
        return self.decision if held == (self.before and plain_newlines(self.before)) else "conflict"


class DraftFile:
    """Drafts for one folder.

    Args:
        path: the file; it need not be there yet.
        folder: the folder of pictures.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder

    @classmethod
    def review(cls, workspace: Workspace, folder: Path) -> DraftFile:
        """The drafts of a folder that are to be looked over."""
        return cls(_drafts_dir(workspace, folder) / "review.jsonl", folder)

    @classmethod
    def note(cls, workspace: Workspace, folder: Path, key: str) -> DraftFile:
        """What the job with this key, which writes at once, has done: for going on where it ended."""
        return cls(_drafts_dir(workspace, folder) / f"written-{key}.jsonl", folder)

    @classmethod
    def open(cls, path: Path, folder: Path) -> DraftFile:
        """A file of drafts that is there. Raises UserError when it is not, or is no such file."""
        file = cls(path, folder)
        try:
            if file.read():
                return file
        except (OSError, TypeError):  # a folder, or JSON lines of something else
            pass
        message = f"There are no drafts of captions in {path}."
        raise UserError("caption.no_drafts", message, "`caption DIR --review` makes them, and says where.", "write")

    def read(self) -> dict[str, Draft]:
        """The drafts by picture, in the order in which they were first made."""
        return {line["name"]: Draft(**line) for line in self._lines() if "name" in line}

    def run(self, key: str) -> str:
        """The name of a job's run: it stays the same until one comes to its end, however often it is started."""
        return f"{key}.{sum(1 for line in self._lines() if line.get('finished') == key)}"

    def add(self, drafts: Iterable[Draft]) -> None:
        """Append drafts; they replace earlier ones of the same pictures."""
        self._append(asdict(draft) for draft in drafts)

    def finish(self, key: str) -> None:
        """Note that the job with this key came to its end."""
        self._append([{"finished": key}])

    def drop(self, names: Iterable[str]) -> None:
        """Forget drafts; the file goes with the last of them."""
        dropped = set(names)
        with self._lock():
            kept = [line for line in self._lines() if line.get("name") not in dropped]
            if any("name" in line for line in kept):
                write_text(self.path, "".join(map(_as_line, kept)))
            else:
                self.path.unlink(missing_ok=True)

    @property
    def version(self) -> str:
        """Changes whenever drafts do; empty where there are none."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return ""
        return f"{status.st_mtime_ns:x}-{status.st_size}"

    def _append(self, lines: Iterable[dict[str, Any]]) -> None:
        with self._lock():
            end_torn_line(self.path)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(map(_as_line, lines))
                file.flush()
                os.fsync(file.fileno())

    def _lines(self) -> list[dict[str, Any]]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        lines = data[: data.rfind(b"\n") + 1].decode("utf-8", "replace").split("\n")
        return [values for line in lines if (values := _of_line(line)) is not None]

    def _lock(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_suffix(".lock"), timeout=30)


def _drafts_dir(workspace: Workspace, folder: Path) -> Path:
    return workspace.dir / "captions" / folder_key(folder)


def _as_line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def _of_line(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):  # half a line, ended when the next one was appended
        return None
    return values if isinstance(values, dict) else None
