"""Names of what is being written, and clearing away what processes that are gone left under such names.

The name tells the process: its number, and when it began, as numbers are given again. So what a killed process left is
known from what a living one is about to put in place. Processes of other machines or containers that write into the
same folder cannot be seen: what looks like theirs stays for a day after its last change.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from trainer.processes import start_mark

_NAME = re.compile(
    r"\.(?P<target>.+)\.(?P<place>[0-9a-f]{4})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{6}\.(?P<old>old\.)?tmp", re.DOTALL
)
_A_DAY_SECONDS = 86_400


def unfinished(target: Path) -> Path:
    """A hidden path beside ``target`` to write to, never given twice; nothing is made there."""
    pid = os.getpid()
    return target.with_name(f".{target.name}.{_place()}-{pid}-{start_mark(pid) or 0}-{secrets.token_hex(3)}.tmp")


def set_aside(path: Path) -> Path:
    """Where what is to be replaced by the ``unfinished`` path goes meanwhile: it goes back if the process is killed."""
    return path.with_suffix(".old.tmp")


def clear_left(folder: Path) -> None:
    """Remove what processes that are gone left unfinished in a folder; what one was about to replace goes back.

    What cannot be removed stays: the next to write there may have the right to.
    """
    with suppress(OSError):
        for path in [Path(entry) for entry in os.scandir(folder) if entry.name.endswith(".tmp")]:
            found = _NAME.fullmatch(path.name)
            if found is not None and not _is_at_work(path, found):
                target = path.with_name(found["target"])
                with suppress(OSError):
                    if found["old"] and not target.exists():
                        path.rename(target)
                    else:
                        remove(path)


@cache
def clear_left_once(folder: Path) -> None:
    """``clear_left`` for a process that writes to the folder again and again."""
    clear_left(folder)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there. Raises OSError for a file that cannot be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_at_work(path: Path, found: re.Match[str]) -> bool:
    """Whether the process that a name tells may still be writing there."""
    if found["place"] != _place():
        return time.time() - path.stat().st_mtime < _A_DAY_SECONDS
    return start_mark(int(found["pid"])) == int(found["start"])


@cache
def _place() -> str:
    """Where process numbers mean what they mean here: this machine, and on it this container."""
    try:
        container = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        container = 0
    return hashlib.sha256(f"{platform.node()} {container}".encode()).hexdigest()[:4]
