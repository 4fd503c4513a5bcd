"""Whether a file is still the one that was read before, told without reading it. Never torch.

Size, times and number in the file system: they do not all stay when a file is written to, as no program can set POSIX's
``st_ctime``, the time of the last change of anything about the file. On Windows there is only that of its contents.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from trainer.files import folder_key, read_json, write_json

SETTLED_NS = 2_000_000_000
"""So long a file must have been left alone: within a tick of the file system's clock it may change and look alike."""

FileState = tuple[int, int, int, int]
Mark = tuple[FileState, bool] | None


def file_state(path: Path) -> FileState:
    """What changes when the file does. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def is_settled(state: FileState, read_ns: int) -> bool:
    """Whether a file of this state, read at this time (Unix, nanoseconds), is sure to have another once it changes."""
    changed_ns = state[1] if os.name == "nt" else state[2]
    return read_ns - changed_ns > SETTLED_NS


def mark_of(path: Path) -> Mark:
    """Stands for what a file holds, or a folder lists, for those who follow it; None where there is none.

    To be asked for before reading: what is written in between then counts as new at the next look. It changes with the
    file, and once more when that has been left alone for a while, so that a change within a tick is read then.
    """
    try:
        state, read_ns = file_state(path), time.time_ns()
    except OSError:
        return None
    return state, is_settled(state, read_ns)


class FileDigests:
    """SHA-256 of files, by folder remembered on disk, so that a file that did not change is not read again."""

    def __init__(self, folder: Path | None) -> None:
        """``folder`` is where they are remembered; without one each file is read."""
        self._folder = folder
        self._known: dict[Path, dict[str, list[object]]] = {}
        self._new: dict[Path, dict[str, list[object]]] = {}

    def digest(self, path: Path) -> str:
        """Of one file. Raises OSError. May be called in several threads."""
        state, read_ns = file_state(path), time.time_ns()
        known = self._known_in(path.parent).get(path.name)
        if known is not None and known[:-1] == list(state):
            return str(known[-1])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if is_settled(state, read_ns):
            self._new.setdefault(path.parent, {})[path.name] = [*state, digest]
        return digest

    def keep(self) -> None:
        """Remember what was read anew. A disk that refuses costs the next run's time only."""
        new, self._new = self._new, {}
        for folder, files in new.items():
            self._known[folder] = self._known_in(folder) | files
            if self._folder is not None:
                with suppress(OSError):
                    write_json(self._file(self._folder, folder), self._known[folder], durable=False)

    def _known_in(self, folder: Path) -> dict[str, list[object]]:
        if folder not in self._known:
            self._known[folder] = self._read(folder)
        return self._known[folder]

    def _read(self, folder: Path) -> dict[str, list[object]]:
        if self._folder is None:
            return {}
        try:
            kept = read_json(self._file(self._folder, folder))
        except (OSError, ValueError):
            return {}
        files = kept.items() if isinstance(kept, dict) else ()
        return {name: entry for name, entry in files if isinstance(entry, list) and entry}

    @staticmethod
    def _file(kept_in: Path, folder: Path) -> Path:
        return kept_in / f"{folder_key(folder)}.json"
