"""Where large results go: complete under their name or not there at all.

A result is built beside its place under a name that tells the process; what a killed process left is cleared away by
the next one that writes to the same place.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import Problem
from trainer.files import fsync_folder
from trainer.unfinished import clear_left, remove, set_aside, unfinished

_SPARE_BYTES = 64 << 20


def space_problems(out: Path, needed_bytes: int) -> list[Problem]:
    """Whether the disk has room for so many bytes more. What is overwritten goes only afterwards."""
    there = next(folder for folder in out.resolve().parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free >= needed_bytes + _SPARE_BYTES:
        return []
    sizes = f"needs {needed_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    return [Problem("out.disk_full", f"out: {out.name} {sizes}.", "Free some space, or choose another disk.", "out")]


@contextmanager
def new_output(target: Path) -> Iterator[Path]:
    """A path to build a file or folder at, which takes the place of ``target`` when all went well.

    On an exception, that of a signal included, nothing of it stays, nor of folders made for it.
    """
    with scratch_beside(target) as temporary:
        yield temporary
        _put_in_place(temporary, target)
        fsync_folder(target.parent)


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """A path for a file or folder on the same disk as ``target``, gone at the end if it is still there.

    What processes that are gone left of the same is cleared away first, and at the end folders made for nothing.
    """
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_left(target.parent)
    temporary = unfinished(target)
    try:
        yield temporary
    finally:
        remove(temporary)
        for folder in made:
            if not target.exists() and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _put_in_place(temporary: Path, target: Path) -> None:
    if not target.is_dir():
        temporary.replace(target)
        return
    old = set_aside(temporary)
    try:
        target.rename(old)
        temporary.rename(target)
    except BaseException:
        if not target.exists():
            old.rename(target)
        raise
    remove(old)
