"""Links that lead where a folder's owner may not have meant them to: out of it. Never torch.

A data set or model of a stranger may hold a link to a private file of this machine. What follows links when it copies
a folder to where others see it would take that file along under a harmless name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from trainer.errors import Problem, UserError

_NAMED = 3
"""Of many links so many are named."""


def leads_out(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path, followed through every link, ends outside all of ``roots``, which are resolved."""
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError):  # links in a circle lead nowhere
        return True
    return not any(resolved.is_relative_to(root) for root in roots)


def outward_links(folder: Path, hidden: Sequence[str] = ()) -> list[Path]:
    """The links below a folder that are not to be followed when it is copied, relative to it and sorted.

    Those are links that lead out of the folder, to nothing, or in a circle, and links to folders that hold links
    themselves: followed, those could lead out, or be copied without end. In the hub's cache, a snapshot consists of
    links to the ``blobs`` of the same repository; these count as within.

    Args:
        folder: what is copied; it may be a link itself, as whoever copies it has named it.
        hidden: names, as in a shell, of what is not copied: not looked at.
    """
    start = folder.resolve()
    roots = [start, *_blobs(start)]
    return sorted(
        path.relative_to(start) for path in _links(start, hidden) if leads_out(path, roots) or not _is_plain(path)
    )


def refuse_links(folders: Iterable[Path], hidden: Sequence[str] = ()) -> None:
    """Raise UserError, all at once, for the folders that are not copied to where others see them: ``outward_links``."""
    problems = [problem for folder in folders if (problem := _problem(folder, hidden)) is not None]
    if problems:
        raise UserError.many(problems)


def _problem(folder: Path, hidden: Sequence[str]) -> Problem | None:
    links = [link.as_posix() for link in outward_links(folder, hidden)]
    if not links:
        return None
    more = f" and {len(links) - _NAMED} more" if len(links) > _NAMED else ""
    message = f"{folder}: {', '.join(links[:_NAMED])}{more} lead out of the folder, and what is there would go along."
    return Problem("links.outward", message, "Put the files in their place; `cp -rL` copies a folder so.")


def _links(folder: Path, hidden: Sequence[str] = ()) -> Iterator[Path]:
    """Every link below a folder, not followed."""
    for parent, folders, files in os.walk(folder):
        folders[:] = _shown(folders, hidden)
        for name in (*folders, *_shown(files, hidden)):
            if (path := Path(parent, name)).is_symlink():
                yield path


def _shown(names: Iterable[str], hidden: Sequence[str]) -> list[str]:
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in hidden)]


def _is_plain(link: Path) -> bool:
    """Whether a link leads to a file, or to a folder in which there are no more links."""
    return link.is_file() or (link.is_dir() and next(_links(link.resolve()), None) is None)


def _blobs(snapshot: Path) -> list[Path]:
    blobs = snapshot.parent.parent / "blobs"
    return [blobs] if snapshot.parent.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink() else []
