"""Which files of a folder a dataset is made of, seen in one walk: pictures, captions, tables and masks. No Gradio."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trainer.curation.steps import HIDDEN
from trainer.data.caption_tables import is_caption_table
from trainer.data.image_files import is_picture_name
from trainer.data.own_captions import CAPTION_ENDINGS
from trainer.outward_links import leads_out

Roots = Callable[[], Sequence[Path]]
"""Tells the folders that the page may read, resolved."""

Stamp = tuple[int, int]
"""When a file was last written, in nanoseconds, and its bytes: another stamp, another content."""

_MASKS = f"{HIDDEN}/masks"
_NOT_PICTURES = "__MACOSX"


@dataclass
class Scan:
    """A folder's files by name relative to it, with their stamps. A picture is left out where it, or a caption of its
    name, is a link that leads out of reach.

    Attributes:
        pictures: in the order in which they are shown.
        captions: files that may be a picture's caption.
        tables: files that may hold many captions.
        masks: pictures' names without ending for which there is a painted mask.
        folders: every folder looked into and when its list of files last changed, in nanoseconds.
    """

    pictures: dict[str, Stamp] = field(default_factory=dict)
    captions: dict[str, Stamp] = field(default_factory=dict)
    tables: dict[str, Stamp] = field(default_factory=dict)
    masks: frozenset[str] = frozenset()
    folders: dict[Path, int] = field(default_factory=dict)

    def same_files(self, other: Scan) -> bool:
        """Whether both saw the same files with the same content."""
        mine = (self.pictures, self.captions, self.tables, self.masks)
        return mine == (other.pictures, other.captions, other.tables, other.masks)

    def is_current(self) -> bool:
        """Whether no file was added, taken away or renamed since. Files written in place do not show."""
        return all(_modified(folder) == time_ns for folder, time_ns in self.folders.items())


def scan(folder: Path, roots: Sequence[Path]) -> Scan:
    """Look through a folder. Links count where they lead into one of ``roots``."""
    found = Scan()
    pictures: dict[str, Stamp] = {}
    barred: set[str] = set()
    for inside, entry in _walk(folder, "", found.folders):
        kind, name = _kind(entry.name, pictures, found), inside + entry.name
        if kind is None:
            continue
        if _leads_out(entry, roots):
            barred.add(stem(name))
        elif (stamp := _stamp(entry)) is not None:
            kind[name] = stamp
    shown = (name for name in pictures if stem(name) not in barred)
    found.pictures = {name: pictures[name] for name in sorted(shown, key=lambda name: name.split("/"))}
    masks = folder / _MASKS
    if not masks.is_symlink() and masks.is_dir():
        found.masks = frozenset(
            stem(inside + entry.name)
            for inside, entry in _walk(masks, "", found.folders)
            if is_picture_name(entry.name) and entry.is_file(follow_symlinks=False)
        )
    elif (folder / HIDDEN).is_dir():
        found.folders[folder / HIDDEN] = _modified(folder / HIDDEN)
    return found


def scan_some(folder: Path, roots: Sequence[Path], names: Iterable[str], before: Scan) -> Scan | None:
    """``before`` with these pictures and their captions as they are now.

    None where a picture is gone, or a link leads out now: then the whole folder has to be looked through.
    """
    pictures, captions, folders = dict(before.pictures), dict(before.captions), dict(before.folders)
    for name in names:
        parent = (folder / name).parent
        folders[parent] = _modified(parent)
        stamp = _stamp_within(folder / name, roots)
        if not isinstance(stamp, tuple):
            return None
        pictures[name] = stamp
        for caption in (stem(name) + ending for ending in CAPTION_ENDINGS):
            stamp = _stamp_within(folder / caption, roots)
            if stamp == "leads out":
                return None
            captions.pop(caption, None)
            if isinstance(stamp, tuple):
                captions[caption] = stamp
    return Scan(pictures, captions, before.tables, before.masks, folders)


def stem(name: str) -> str:
    """A name without its ending: what a picture, its caption and its mask have in common."""
    return name.rpartition(".")[0]


def _kind(name: str, pictures: dict[str, Stamp], found: Scan) -> dict[str, Stamp] | None:
    if is_picture_name(name):
        return pictures
    if name.endswith(CAPTION_ENDINGS):
        return found.captions
    return found.tables if is_caption_table(name) else None


def _walk(folder: Path, inside: str, times: dict[Path, int]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files of a folder and of those in it, hidden ones left out, each with its folder's name and a slash."""
    times[folder] = _modified(folder)
    below = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                else:
                    yield inside, entry
    except OSError:  # gone meanwhile, or not ours to read: what is there otherwise is shown
        return
    for name in below:
        if not name.startswith((".", _NOT_PICTURES)):
            yield from _walk(folder / name, f"{inside}{name}/", times)


def _stamp_within(path: Path, roots: Sequence[Path]) -> Stamp | Literal["gone", "leads out"]:
    if path.is_symlink() and leads_out(path, roots):
        return "leads out"
    try:
        status = path.stat()
    except OSError:
        return "gone"
    return status.st_mtime_ns, status.st_size


def _leads_out(entry: os.DirEntry[str], roots: Sequence[Path]) -> bool:
    return entry.is_symlink() and leads_out(Path(entry.path), roots)


def _stamp(entry: os.DirEntry[str]) -> Stamp | None:
    try:
        status = entry.stat()
    except OSError:  # gone meanwhile, or a link to nothing
        return None
    return status.st_mtime_ns, status.st_size


def _modified(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0
