"""The steps that edits of a dataset consist of: a caption's text, or a file's place. Each can be taken back.

Files are never deleted: what leaves the dataset, or makes room for a better copy, goes into the folder's hidden
``.atelier``, which neither training nor the page looks into.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from trainer.data.caption_files import plain_newlines, read_caption, write_captions
from trainer.files import fsync_folder

HIDDEN = ".atelier"
State = Literal["before", "between", "after", "other"]
"""Whether a step is still to be done, was cut short half-way, is done, or no longer fits what is there."""


@dataclass(frozen=True)
class Change:
    """One caption before and after; None is "no caption file". Names are relative to the folder."""

    name: str
    before: str | None
    after: str | None

    def state(self, folder: Path) -> State:
        """Whether the file holds the text before or after."""
        held = read_caption(folder / self.name)
        if held == _plain(self.before):
            return "before"
        return "after" if held == _plain(self.after) else "other"


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

    def state(self, folder: Path) -> State:
        """Where the files are."""
        at_source, at_target = (folder / self.source).exists(), (folder / self.target).exists()
        if self.displaced is None:
            return "other" if at_source == at_target else "before" if at_source else "after"
        aside = (folder / self.displaced).exists()
        known: dict[tuple[bool, bool, bool], State] = {
            (True, True, False): "before",
            (True, False, True): "between",
            (False, True, True): "after",
        }
        return known.get((at_source, at_target, aside), "other")

    def carry_out(self, folder: Path) -> None:
        """Move the file, or go on where this was cut short."""
        if self.displaced is not None and (folder / self.target).exists():
            _rename(folder / self.target, folder / self.displaced)
        _rename(folder / self.source, folder / self.target)

    def take_back(self, folder: Path) -> None:
        """Undo the move, or go on where that was cut short."""
        if not (folder / self.source).exists():
            _rename(folder / self.target, folder / self.source)
        if self.displaced is not None:
            _rename(folder / self.displaced, folder / self.target)


Step = Change | Move
"""The steps of one edit do not depend on each other: no two of them touch the same file."""


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
    taken = (folder / name).exists()
    return Move(source, name, f"{HIDDEN}/aside/{secrets.token_hex(6)}/{name}" if taken else None)


def carry_out(folder: Path, steps: Iterable[Step]) -> None:
    """Carry out steps whose state is "before" or "between"."""
    captions: dict[Path, str | None] = {}
    for step in steps:
        if isinstance(step, Move):
            step.carry_out(folder)
        else:
            captions[folder / step.name] = step.after
    write_captions(captions)


def take_back(folder: Path, steps: Iterable[Step]) -> None:
    """Take back steps whose state is "after" or "between"."""
    captions: dict[Path, str | None] = {}
    for step in steps:
        if isinstance(step, Move):
            step.take_back(folder)
        else:
            captions[folder / step.name] = step.before
    write_captions(captions)


def _plain(text: str | None) -> str | None:
    return None if text is None else plain_newlines(text)


def _rename(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # rename would overwrite it
        raise FileExistsError(f"{target} is there already")
    source.rename(target)
    fsync_folder(target.parent)
    fsync_folder(source.parent)
