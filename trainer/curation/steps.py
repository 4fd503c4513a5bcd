"""The steps that edits of a dataset consist of: a caption's text, or a file's place. Each can be taken back.

Files are never deleted: what leaves the dataset, or makes room for a better copy, goes into the folder's hidden
``.atelier``, which neither training nor the page looks into.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from trainer.data.caption_files import (
    CaptionFile,
    decode,
    plain_newlines,
    read_caption,
    side_by_side,
    store_caption,
    write_caption,
)
from trainer.files import fsync_folder

HIDDEN = ".atelier"
State = Literal["before", "between", "after", "other"]
"""Whether a step is still to be done, was cut short half-way, is done, or no longer fits what is there."""


@dataclass(frozen=True)
class Change:
    """One caption before and after; None is "no caption file". Names are relative to the folder.

    Attributes:
        original: the file's bytes before, where its text written anew would not give them, as with another encoding
            or mixed line ends. See ``remembering``.
    """

    name: str
    before: str | None
    after: str | None
    original: bytes | None = None

    @property
    def touched(self) -> list[str]:
        """The files concerned."""
        return [self.name]

    def state(self, folder: Path) -> State:
        """Whether the file holds the text before or after. Raises OSError when it cannot be read."""
        held = read_caption(folder / self.name)
        if held == _plain(self.before):
            return "before"
        return "after" if held == _plain(self.after) else "other"

    def remembering(self, folder: Path) -> Change:
        """The same change, keeping the bytes that taking it back must restore."""
        try:
            data = (folder / self.name).read_bytes()
        except FileNotFoundError:
            return self
        written = CaptionFile("") if self.after is None else decode(decode(data).with_text(self.after).to_bytes())
        taken_back = written.with_text(self.before or "").to_bytes()
        return self if taken_back == data else replace(self, original=data)

    def carry_out(self, folder: Path) -> None:
        """Write the text after. Raises OSError."""
        write_caption(folder / self.name, self.after)

    def take_back(self, folder: Path) -> None:
        """Bring back what was there before, to the byte. Raises OSError."""
        if self.original is not None:
            store_caption(folder / self.name, self.original)
        else:
            write_caption(folder / self.name, self.before)


@dataclass(frozen=True)
class Move:
    """One file from ``source`` to ``target``. Names are relative to the folder.

    Attributes:
        source: where it is.
        target: where it comes to.
        displaced: where the file that is at ``target`` goes first; None where nothing may be there.
    """

    source: str
    target: str
    displaced: str | None = None

    @property
    def name(self) -> str:
        """The file as people know it: not the one in the hidden folder."""
        return self.target if PurePosixPath(self.source).parts[0] == HIDDEN else self.source

    @property
    def touched(self) -> list[str]:
        """The files concerned."""
        return [name for name in (self.source, self.target, self.displaced) if name is not None]

    def state(self, folder: Path) -> State:
        """Where the files are."""
        at_source, at_target = _is_there(folder / self.source), _is_there(folder / self.target)
        if self.displaced is None:
            return "other" if at_source == at_target else "before" if at_source else "after"
        aside = _is_there(folder / self.displaced)
        if at_source and at_target and aside:
            places = (folder / self.source, folder / self.displaced)
            return "between" if any(_is_same(folder / self.target, place) for place in places) else "other"
        known: dict[tuple[bool, bool, bool], State] = {
            (True, True, False): "before",
            (True, False, True): "between",
            (False, True, True): "after",
        }
        return known.get((at_source, at_target, aside), "other")

    def carry_out(self, folder: Path) -> None:
        """Move the file, or go on where this was cut short. Raises OSError, and then nothing has moved."""
        if self.displaced is None:
            _rename(folder / self.source, folder / self.target)
        else:
            _exchange(folder / self.source, folder / self.target, folder / self.displaced)

    def take_back(self, folder: Path) -> None:
        """Undo the move, or go on where that was cut short. Raises OSError, and then nothing has moved."""
        if self.displaced is None:
            _rename(folder / self.target, folder / self.source)
        else:
            _exchange(folder / self.displaced, folder / self.target, folder / self.source)


Step = Change | Move
"""The steps of one edit do not depend on each other: no two of them touch the same file."""

Failures = dict[str, OSError]
"""Names of files that could not be written or moved, and why. They are as they were."""


def set_aside(names: Iterable[str]) -> list[Move]:
    """Steps that take files, named relative to the folder, out of the dataset."""
    place = f"{HIDDEN}/aside/{secrets.token_hex(6)}"
    return [Move(name, f"{place}/{name}") for name in names]


def new_file(folder: Path, name: str) -> Path:
    """Where to write a file that is to become ``name``; ``put_in_place`` gives the step that does it."""
    path = folder / HIDDEN / "new" / secrets.token_hex(6) / name
    path.parent.mkdir(parents=True)
    return path


def put_in_place(folder: Path, name: str, written: Path) -> Move:
    """The step that makes a file from ``new_file`` the dataset's ``name``; what is there now goes aside."""
    source = written.relative_to(folder).as_posix()
    taken = _is_there(folder / name)
    return Move(source, name, f"{HIDDEN}/aside/{secrets.token_hex(6)}/{name}" if taken else None)


def carry_out(folder: Path, steps: Iterable[Step]) -> Failures:
    """Carry out steps whose state is "before" or "between"; those that fail do not keep the others from it."""
    return _each(folder, [(step, step.carry_out) for step in steps])


def take_back(folder: Path, steps: Iterable[Step]) -> Failures:
    """Take back steps whose state is "after" or "between"; those that fail do not keep the others from it."""
    return _each(folder, [(step, step.take_back) for step in steps])


def _each(folder: Path, work: list[tuple[Step, Callable[[Path], None]]]) -> Failures:
    failures: Failures = {}
    moved: set[Path] = set()
    for step, act in work:
        if isinstance(step, Move):
            try:
                act(folder)
            except OSError as error:
                failures[step.name] = error
            moved.update((folder / name).parent for name in step.touched)
    for place in moved:  # once for all of them: each takes 10 ms, and thousands of files may have moved
        if place.is_dir():
            fsync_folder(place)
    captions = {folder / step.name: partial(act, folder) for step, act in work if isinstance(step, Change)}
    failed = side_by_side(captions)
    return failures | {path.relative_to(folder).as_posix(): error for path, error in failed.items()}


def _plain(text: str | None) -> str | None:
    return None if text is None else plain_newlines(text)


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)  # a link that leads nowhere is there, too


def _is_same(path: Path, other: Path) -> bool:
    return os.path.samestat(path.lstat(), other.lstat())


def _exchange(new: Path, place: Path, aside: Path) -> None:
    """Put ``new`` in ``place`` and what is there ``aside``, or go on where this, or its opposite, was cut short.

    Whoever looks into ``place`` meanwhile, such as a training, finds the old file or the new one: it is kept aside by
    a second name and then replaced in one go. Only a file system without such links, as exFAT, is without it between.
    """
    kept = _is_there(place) and not _is_there(aside)
    if kept:
        _keep(place, aside)
    try:
        if _is_there(place) and _is_same(new, place):
            new.unlink()  # renaming one name of a file to another does nothing, says POSIX
        else:
            new.replace(place)
    except OSError:
        if kept and _is_there(place):
            aside.unlink()
        elif kept:
            aside.replace(place)
        raise
    _remove_empty(new.parent)


def _keep(path: Path, aside: Path) -> None:
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, aside, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # no links here
        _rename(path, aside)


def _rename(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if _is_there(target):  # rename would overwrite it
        raise FileExistsError(f"{target} is there already")
    source.rename(target)
    _remove_empty(source.parent)


def _remove_empty(place: Path) -> None:
    """Remove what ``set_aside`` or ``new_file`` made for files that are no longer there."""
    while HIDDEN in place.parts[:-2] and not any(place.iterdir()):
        place.rmdir()
        place = place.parent
