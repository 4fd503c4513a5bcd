"""What lies on the disk when a training is killed at any of its changes of files.

A killed process takes nothing back that it has done to files: what is there at the moment before a change is what a
kill at that moment leaves. So one run shows all these moments, each as a copy of its workspace.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.file_operations import Operation, Watched

Files = dict[str, bytes]
"""Contents by path within a folder; folders end with a slash."""


@dataclass(frozen=True)
class Moment:
    """A kill and what it leaves.

    Attributes:
        operation: the change that the process was about to make.
        half: whether half of what it was about to write was written.
        workspace: the copy.
    """

    operation: Operation
    half: bool
    workspace: Path

    def __str__(self) -> str:
        where = "in the middle of" if self.half else "before"
        return f"{where} change {self.operation.number}, {self.operation.call} of {self.operation.path}"


class Moments:
    """Copies of a workspace before each change and in the middle of each write.

    What differs from an earlier one in nothing, or in words of the log only, is copied once.

    Attributes:
        changes: how many there were.
        moments: those that left something else than any before.
    """

    def __init__(self, workspace: Path, copies: Path) -> None:
        self.changes = 0
        self.moments: list[Moment] = []
        self._workspace = workspace
        self._copies = copies
        self._seen: set[str] = set()
        self._known: dict[str, tuple[object, bytes]] = {}

    def note(self, operation: Operation) -> None:
        """Keep what is there now, when a change is about to be made; the change is let happen."""
        self.changes += 1
        if not self._workspace.is_dir():
            return
        now = self._look()
        self._keep(now, operation, half=False)
        if len(operation.data) > 1 and operation.path.is_relative_to(self._workspace):
            name = operation.path.relative_to(self._workspace).as_posix()
            if name in now:  # a file that is open may be removed already
                self._keep(now | {name: _half_written(now[name], operation)}, operation, half=True)

    def _look(self) -> Files:
        """What is there now; what has not changed since the last look is not read again."""
        now: dict[str, tuple[object, bytes]] = {}
        for name, path in _paths(self._workspace):
            status = path.stat()
            state = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._known.get(name)
            kept = known is not None and known[0] == state
            now[name] = known if kept and known else (state, b"" if path.is_dir() else path.read_bytes())
        self._known = now
        return {name: data for name, (_, data) in now.items()}

    def _keep(self, files: Files, operation: Operation, *, half: bool) -> None:
        digest = _digest(files)
        if digest in self._seen:
            return
        self._seen.add(digest)
        copy = self._copies / f"{operation.number:05d}{'-half' if half else ''}"
        put(files, copy)
        self.moments.append(Moment(operation, half, copy))


def moments_of(workspace: Path, others: Sequence[Path], copies: Path, *arguments: str) -> Moments:
    """Run a trainer command to its end, which must be a good one, and keep its moments.

    ``others`` are folders in which nothing may be changed.
    """
    moments = Moments(workspace, copies)
    watched = Watched([workspace, *others], moments.note, *arguments)
    assert watched.wait() == 0, watched.command.communicate()
    elsewhere = [each for each in watched.operations if not each.path.is_relative_to(workspace)]
    assert not elsewhere, elsewhere
    return moments


def contents(folder: Path) -> Files:
    """All there is under a folder."""
    return {name: path.read_bytes() if path.is_file() else b"" for name, path in _paths(folder)}


def _paths(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        yield path.relative_to(folder).as_posix() + "/" * path.is_dir(), path


def put(files: Files, folder: Path) -> None:
    """Make a folder of such contents anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in sorted(files):  # folders before what is in them
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(files[name])


def _half_written(before: bytes, operation: Operation) -> bytes:
    position = len(before) if operation.position < 0 else operation.position
    half = operation.data[: len(operation.data) // 2]
    return before[:position].ljust(position, b"\0") + half + before[position + len(half) :]


def _digest(files: Files) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        if not name.endswith(("train.log", ".lock")):  # nobody reads them to go on
            digest.update(f"{name} {len(files[name])} ".encode() + files[name])
    return digest.hexdigest()
