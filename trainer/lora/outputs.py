"""Where large results go: checked before the work, complete under their name or not there at all.

A result is built beside its place under a name that tells the process; what a killed process left is cleared away by
the next one that writes to the same place.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil

from trainer.errors import Problem
from trainer.files import fsync_folder

Form = Literal["file", "folder"]

_SPARE_BYTES = 64 << 20
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def form_of(out: Path) -> Form:
    """A ``.safetensors`` file, or a model folder."""
    return "file" if out.suffix.lower() == ".safetensors" else "folder"


def out_problems(out: Path, inputs: list[Path], *, overwrite: bool) -> list[Problem]:
    """What speaks against writing to ``out``: its kind, what is there already, or that it would touch an input."""
    if out.suffix.lower() in _PICKLES:
        message = f"out: {out.name} would be a pickle; models are written as .safetensors or as folders."
        return [Problem("merge.out", message, "Let the name end in .safetensors, or leave the ending out.", "out")]
    place = out.resolve()
    for given in inputs:
        path = given.resolve()
        if place == path or place.is_relative_to(path) or path.is_relative_to(place):
            message = f"out: {out} is, or lies within, or holds what is read ({given})."
            return [Problem("merge.out", message, "Choose another place.", "out")]
    return _taken(out, overwrite=overwrite)


def _taken(out: Path, *, overwrite: bool) -> list[Problem]:
    if not out.exists() or (out.is_dir() and form_of(out) == "folder" and not any(out.iterdir())):
        return []
    if out.is_dir() != (form_of(out) == "folder"):
        kind = "a folder" if out.is_dir() else "a file"
        return [Problem("merge.exists", f"out: {out} is {kind} already.", "Choose another name.", "out")]
    if not overwrite:
        hint = "Choose another name, or allow it to be overwritten (--overwrite)."
        return [Problem("merge.exists", f"out: {out} exists already.", hint, "out")]
    if out.is_dir() and not (out / "model_index.json").is_file():
        message = f"out: {out} holds something else than a model, and is not overwritten."
        return [Problem("merge.exists", message, "Choose another name, or delete it yourself.", "out")]
    return []


def space_problems(out: Path, needed_bytes: int) -> list[Problem]:
    """Whether the disk has room for so many bytes more. What is overwritten goes only afterwards."""
    there = next(folder for folder in out.resolve().parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free >= needed_bytes + _SPARE_BYTES:
        return []
    sizes = f"needs {needed_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    return [Problem("merge.disk_full", f"out: {out.name} {sizes}.", "Free some space, or choose another disk.", "out")]


@contextmanager
def new_output(target: Path) -> Iterator[Path]:
    """A path to build a file or folder at, which takes the place of ``target`` when all went well.

    On an exception, that of a signal included, nothing of it stays, nor of folders made for it.
    """
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_left(target)
    temporary = target.parent / f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
        _put_in_place(temporary, target)
        fsync_folder(target.parent)
    finally:
        _remove(temporary)
        for folder in made:
            if not target.exists() and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _put_in_place(temporary: Path, target: Path) -> None:
    if not target.is_dir():
        temporary.replace(target)
        return
    old = temporary.with_suffix(".old.tmp")
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    _remove(old)


def _clear_left(target: Path) -> None:
    """Remove what processes that are gone left of this result."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(\d+)\.[0-9a-f]{{8}}(\.old)?\.tmp")
    for path in target.parent.iterdir():
        found = pattern.fullmatch(path.name)
        if found is None or psutil.pid_exists(int(found[1])):
            continue
        if found[2] and not target.exists():
            path.rename(target)  # it was about to be replaced
        else:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
