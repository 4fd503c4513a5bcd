"""Writing files so that a reader, or a crash, never meets half of one; and reading what was written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainer.unfinished import clear_left_once, unfinished


@contextmanager
def atomic_path(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to; on success flush it to disk and rename it over ``target``.

    On an exception, that of a signal included, the temporary file is removed and ``target`` is left as it was. What may
    be lost with the power, such as how far a job is, needs no flush: not ``durable``. What killed processes left of
    such files in the folder is removed when a process first writes there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_left_once(target.parent)
    temporary = unfinished(target)  # a name only: no file before ``try``
    try:
        yield temporary
        if durable:
            _fsync(temporary)
        temporary.replace(target)
        if durable:
            fsync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: Path, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` to ``target`` atomically."""
    with atomic_path(target, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str, *, durable: bool = True) -> None:
    """Write ``text`` to ``target`` atomically as UTF-8, line ends untouched."""
    write_bytes(target, text.encode("utf-8"), durable=durable)


def write_json(target: Path, value: Any, *, durable: bool = True) -> None:
    """Write ``value`` to ``target`` atomically as indented JSON. Raises ValueError like ``json_bytes``."""
    write_bytes(target, json_bytes(value), durable=durable)


def json_bytes(value: Any) -> bytes:
    """``value`` as indented JSON in UTF-8.

    Raises ValueError for NaN, infinity, half characters, and brackets in brackets without end.
    """
    try:
        return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def home_path(path: str | Path) -> Path:
    """The path with the home folder in the place of ``~``; where there is no such home it stays as it is written."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises OSError or ValueError, also for brackets in brackets without end."""
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """Read JSON that others have written. Raises ValueError, also for brackets in brackets without end."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error


def json_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is missing, broken or no object."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def size_bytes(folder: Path) -> int:
    """Bytes of all files under a folder; files that vanish meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(parent, name).lstat().st_size
    return total


def is_full(error: OSError) -> bool:
    """Whether a disk refused because it, or what a user may fill of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_of_the_disk(error: OSError) -> bool:
    """Whether an error is the disk's and not the file's: full, read-only, failing or gone. It may pass."""
    return is_full(error) or error.errno in (errno.EROFS, errno.EIO, getattr(errno, "ESTALE", None))


def cut_torn_line(path: Path) -> None:
    """Take off the half line that a killed process, or a full disk, leaves behind."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def end_torn_line(path: Path) -> None:
    """End the half line that a process killed while writing leaves behind, so that the next line stands on its own."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")


def folder_key(folder: Path) -> str:
    """A short name for a folder, the same each time: under it the workspace keeps what belongs to the folder."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def _fsync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut."""
    if os.name == "nt":  # Windows cannot open a folder for fsync; its rename is journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def last_log_line(log_path: Path) -> str:
    """The last line of a log that is not empty; empty where there is none."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, log_path.stat().st_size - 4096))
            lines = log.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
