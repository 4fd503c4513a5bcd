"""Undo and redo of edits, kept in the workspace per folder of pictures.

Each edit is a file of JSON lines: a heading, then one line per step (``steps.py``). It is on the disk before anything
is done, so an edit cut short can be undone like any other. ``position`` counts the edits in effect. Every process that
reads or moves it holds a lock, so the page and a job can work on one folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.curation.edit_files import Heading, heading_line, read_heading, read_steps, step_line
from trainer.curation.steps import Change, Failures, Step, carry_out, take_back
from trainer.data.caption_files import ENCODINGS, decode
from trainer.errors import UserError
from trainer.files import cut_torn_line, folder_key, is_of_the_disk, write_text
from trainer.runs.store import Workspace

KEPT_EDITS = 100
"""Older edits can no longer be undone."""
_LOCK_SECONDS = 30


@dataclass(frozen=True)
class Outcome:
    """What an edit, an undo or a redo did.

    Attributes:
        title: the edit's name; empty when there was nothing to do.
        written: files changed.
        conflicts: names of files that meanwhile hold something else, or lie elsewhere, and were left alone.
        failed: names of files that could not be read, written or moved, each with the reason.
        recoded: names of caption files that were not plain UTF-8 and now are, each with what they were.
    """

    title: str
    written: int
    conflicts: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    recoded: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PastEdit:
    """An edit of the log.

    Attributes:
        number: its place in the log, from 1.
        time: when it was begun, in seconds since 1970.
        steps: how many files it concerns.
        by: who did it, as given to ``EditLog.apply``.
        in_effect: False for one that was taken back.
    """

    number: int
    title: str
    time: float
    steps: int
    by: str
    in_effect: bool


def edits_dir(workspace: Workspace, folder: Path) -> Path:
    """Where ``workspace`` keeps what was done by hand to ``folder``: the edit log, crop boxes."""
    return workspace.dir / "edits" / folder_key(folder)


@dataclass
class _Sorted:
    """Steps by what their files hold now."""

    before: list[Step] = field(default_factory=list)
    between: list[Step] = field(default_factory=list)
    after: list[Step] = field(default_factory=list)
    other: list[Step] = field(default_factory=list)
    unreadable: Failures = field(default_factory=dict)

    def outcome(self, title: str, tried: list[Step], failed: Failures, *, missed: bool = False) -> Outcome:
        """What to tell of an edit; ``missed``: steps that were done already count as conflicts."""
        done = [step for step in tried if step.name not in failed]
        left = [*self.other, *self.between, *self.after] if missed else self.other
        problems = failed | self.unreadable
        return Outcome(
            title,
            len(done),
            tuple(step.name for step in left),
            tuple((name, error.strerror or str(error)) for name, error in problems.items()),
            tuple(_recoded(done)),
        )


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

    def apply(self, title: str, steps: Iterable[Step], by: str = "") -> Outcome:
        """Do each step for which everything still is as it was, and remember the edit for undo.

        Args:
            by: who does it, for ``undo``: an open page.

        Raises:
            UserError: it cannot be noted; then nothing is done.
        """
        steps = list(steps)
        _refuse_overlap(steps)
        with self._lock():
            found = self._sort(steps)
            if not found.before:
                return found.outcome(title, [], {}, missed=True)
            kept = [step.remembering(self._folder) if isinstance(step, Change) else step for step in found.before]
            self._begin(title, kept, by)
            failed = carry_out(self._folder, kept)
        return found.outcome(title, kept, failed, missed=True)

    @contextmanager
    def growing(self, title: str) -> Iterator[Callable[[Step], bool]]:
        """For a job that works picture by picture: yields a function that remembers and does one step.

        It returns False, and does nothing, when the files meanwhile are not as they were. It raises OSError when a
        file cannot be written, and UserError when the step cannot be noted. Steps after an undo of what is done so far
        make an edit of their own.
        """
        edit: Path | None = None

        def do(step: Step) -> bool:
            nonlocal edit
            with self._lock():
                if step.state(self._folder) != "before":
                    return False
                kept = step.remembering(self._folder) if isinstance(step, Change) else step
                if edit is None or not edit.exists() or int(edit.stem) > self._position():
                    edit = self._begin(title, [kept])
                else:
                    self._append(edit, kept)
                for error in carry_out(self._folder, [kept]).values():
                    raise error
            return True

        yield do

    def undo(self, seen: str | None = None, by: str = "") -> Outcome:
        """Take back the last edit in effect.

        Args:
            seen: the version that the asking page shows; see ``version``.
            by: the asking page.

        Raises:
            UserError: somebody else edited since that version, so the page would take back what it never saw.
        """
        with self._lock():
            self._refuse_unseen(seen, by)
            return self._go(self._position(), back=True)

    def redo(self, seen: str | None = None, by: str = "") -> Outcome:
        """Do the last edit that was taken back again. Raises UserError like ``undo``."""
        with self._lock():
            self._refuse_unseen(seen, by)
            return self._go(self._position() + 1, back=False)

    def go_to(self, number: int, seen: str | None = None, by: str = "") -> list[Outcome]:
        """Undo or redo one by one until edit ``number`` is the last in effect; 0 takes back all that is kept.

        Raises UserError like ``undo``.
        """
        outcomes = []
        with self._lock():
            self._refuse_unseen(seen, by)
            while self._position() > number and self._title(self._position()):
                outcomes.append(self._go(self._position(), back=True))
            while self._position() < number and self._title(self._position() + 1):
                outcomes.append(self._go(self._position() + 1, back=False))
        return outcomes

    def titles(self) -> tuple[str, str]:
        """What undo and redo would act on; empty where there is nothing."""
        position = self._position()
        return self._title(position), self._title(position + 1)

    def history(self) -> list[PastEdit]:
        """All edits that can be undone or redone, the latest first."""
        position = self._position()
        past = []
        for path in sorted(self._dir.glob("*.jsonl"), reverse=True):
            try:
                status = path.stat()
                heading, steps = _summary(path, status.st_mtime_ns, status.st_size)
            except FileNotFoundError:  # forgotten this moment, by another process
                continue
            if heading is not None:
                number = int(path.stem)
                past.append(PastEdit(number, heading.title, heading.time, steps, heading.by, number <= position))
        return past

    def version(self) -> str:
        """Differs after every edit, undo and redo by whatever process; cheap to ask for."""
        try:
            status = (self._dir / "position").stat()
        except FileNotFoundError:
            return ""
        return f"{status.st_mtime_ns:x}-{status.st_ino:x}"

    def _refuse_unseen(self, seen: str | None, by: str) -> None:
        if seen is None or seen == self.version():
            return
        heading = self._heading(self._position())
        if by and heading and heading.by == by:
            return
        what = f'The last change now is "{heading.title}".' if heading else "Changes were taken back."
        raise UserError(
            "edit.elsewhere",
            f"Another window or a job changed this dataset meanwhile. {what}",
            "Look at the pictures, then press the button again if you still want to.",
        )

    def _go(self, number: int, *, back: bool) -> Outcome:
        title = self._title(number)
        if not title:
            return Outcome("", 0)
        found = self._sort(read_steps(self._edit_path(number)))
        steps = [*found.between, *(found.after if back else found.before)]
        failed = (take_back if back else carry_out)(self._folder, steps)
        if not any(map(is_of_the_disk, failed.values())):  # else the rest is to be done when the disk is well again
            self._move_to(number - 1 if back else number)
        outcome = found.outcome(title, steps, failed)
        return replace(outcome, recoded=()) if back else outcome

    def _sort(self, steps: Iterable[Step]) -> _Sorted:
        found = _Sorted()
        for step in steps:
            try:
                state = step.state(self._folder)
            except OSError as error:
                found.unreadable[step.name] = error
            else:
                getattr(found, state).append(step)
        return found

    def _begin(self, title: str, steps: list[Step], by: str = "") -> Path:
        """Put an edit into the log, in effect; those taken back before it are forgotten, and so are very old ones."""
        position = self._position()
        edit = self._edit_path(position + 1)
        with self._noting():
            write_text(edit, heading_line(title, by) + "".join(map(step_line, steps)))
            for path in self._dir.glob("*.jsonl"):
                if int(path.stem) > position + 1 or int(path.stem) <= position - KEPT_EDITS:
                    path.unlink()
            self._move_to(position + 1)
        return edit

    def _append(self, edit: Path, step: Step) -> None:
        with self._noting():
            cut_torn_line(edit)  # of a step that was not noted whole, and so not done
            with edit.open("a", encoding="utf-8") as file:
                file.write(step_line(step))
                file.flush()
                os.fsync(file.fileno())

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """What cannot be noted is not done, or it could not be taken back."""
        try:
            yield
        except OSError as error:
            message = f"The change could not be noted, so nothing was changed: {error.strerror}."
            hint = f"Free some space where {self._dir} lies, or see to its rights; then try again."
            raise UserError("edit.unnoted", message, hint) from error

    def _title(self, number: int) -> str:
        heading = self._heading(number)
        return heading.title if heading else ""

    def _heading(self, number: int) -> Heading | None:
        """None where there is no such edit, or a damaged one."""
        try:
            return read_heading(self._edit_path(number))
        except FileNotFoundError:
            return None

    def _edit_path(self, number: int) -> Path:
        return self._dir / f"{number:06}.jsonl"

    def _position(self) -> int:
        try:
            return int((self._dir / "position").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0
        except ValueError:  # damaged: what is there is taken for done
            return max((int(path.stem) for path in self._dir.glob("*.jsonl")), default=0)

    def _move_to(self, position: int) -> None:
        write_text(self._dir / "position", str(position))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._dir / ".lock", timeout=_LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout as error:
            message = "Another window or a job is changing this dataset right now."
            raise UserError("edit.locked", message, "Wait until it has ended, and try again.") from error
        try:
            yield
        finally:
            lock.release()


@lru_cache(maxsize=4 * KEPT_EDITS)
def _summary(path: Path, _mtime_ns: int, _size: int) -> tuple[Heading | None, int]:
    """Heading and number of steps of an edit's file, read again only when the file has changed."""
    return read_heading(path), path.read_bytes().count(b"\n") - 1


def _recoded(steps: Iterable[Step]) -> Iterator[tuple[str, str]]:
    for step in steps:
        if isinstance(step, Change) and step.original is not None:
            encoding = decode(step.original).encoding
            if encoding != "utf-8":  # else only the line ends were mixed
                yield step.name, ENCODINGS[encoding]


def _refuse_overlap(steps: Iterable[Step]) -> None:
    seen: set[str] = set()
    for step in steps:
        for name in step.touched:
            if name in seen:
                raise ValueError(f"two steps of one edit touch {name}")
            seen.add(name)
