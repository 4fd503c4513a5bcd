"""What the doctor answers: findings, each with its files and the fixes that apply, and a report of them all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.curation.fixes.offers import OFFERS

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

_SHOWN_PATHS = 5


@dataclass(frozen=True)
class Finding:
    """Something worth knowing about some of the files.

    Attributes:
        code: stable name such as ``picture.unreadable``.
        severity: error: left out of training; warning: likely to hurt; info: good to know.
        paths: the files, relative to the folder.
        message: what was found.
        hint: what to do about it.
        fixes: codes of the fixes that apply, the usual one first.
        keep: of pictures that show the same, the one to keep; empty elsewhere.
        values: what the fixes need to know, such as the tag and the one it resembles.
    """

    code: str
    severity: Severity
    paths: tuple[str, ...]
    message: str
    hint: str
    fixes: tuple[str, ...] = ()
    keep: str = ""
    values: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Tells this finding from others, also of later reports."""
        return hashlib.sha256(
            "\0".join((self.code, self.message, *self.paths)).encode("utf-8", "surrogateescape")
        ).hexdigest()[:16]

    @property
    def targets(self) -> tuple[str, ...]:
        """The files that a fix works on: all but the one to keep."""
        return tuple(path for path in self.paths if path != self.keep)

    def without(self, left_as_is: frozenset[tuple[str, str]]) -> Finding | None:
        """The finding without files that are to stay as they are, (code, path); None when nothing remains of it."""
        paths = tuple(path for path in self.paths if (self.code, path) not in left_as_is)
        if paths == self.paths:
            return self
        if not paths or (self.keep and len(paths) < 2):
            return None
        values = {**vars(self), "paths": paths, "keep": self.keep if self.keep in paths else paths[0]}
        return Finding(**values if self.keep else {**values, "keep": ""})

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Finding:
        """From ``dataclasses.asdict`` by way of JSON."""
        return cls(**{**values, "paths": tuple(values["paths"]), "fixes": tuple(values["fixes"])})


@dataclass(frozen=True)
class Report:
    """What ``examine`` found, errors first. ``captions`` counts pictures that have one; ``tags`` by frequency."""

    folder: str
    pictures: int
    captions: int
    findings: list[Finding]
    tags: list[tuple[str, int]]


class Findings:
    """Collects findings; files with the same message come together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[tuple[str, Severity, str, str], list[str]] = {}
        self._more: dict[tuple[str, Severity, str, str], dict[str, Any]] = {}

    def add(
        self,
        code: str,
        severity: Severity,
        paths: Iterable[Path],
        message: str,
        hint: str,
        *,
        keep: Path | None = None,
        values: Mapping[str, str] | None = None,
    ) -> None:
        """Note something about some files; ``Finding`` tells the arguments."""
        names = [path.relative_to(self._folder).as_posix() for path in paths]
        key = (code, severity, message, hint)
        self._found.setdefault(key, []).extend(names)
        self._more[key] = {
            "keep": "" if keep is None else keep.relative_to(self._folder).as_posix(),
            "values": dict(values or {}),
        }

    def sorted(self) -> list[Finding]:
        """All findings, the worst first."""
        found = [
            Finding(*key[:2], tuple(sorted(paths)), *key[2:], fixes=OFFERS.get(key[0], ()), **self._more[key])
            for key, paths in self._found.items()
        ]
        return sorted(found, key=lambda item: (SEVERITIES.index(item.severity), item.code, item.paths))


def named(paths: Sequence[Path]) -> str:
    """The first file names of many, and how many more there are."""
    names = [path.name for path in paths[:_SHOWN_PATHS]]
    return ", ".join(names) + (f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else "")
