"""What the doctor keeps in the workspace for each folder: looks at files, reports, and findings to be left as they are.

A report belongs to one state of the folder. When an undo brings that state back, its report fits again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.curation.doctor.look import Look
from trainer.curation.doctor.report import Finding, Report
from trainer.curation.edit_log import edits_dir
from trainer.curation.fixes.companions import MASKS
from trainer.data.image_files import is_picture_file
from trainer.data.own_captions import CAPTION_ENDINGS
from trainer.files import folder_key, read_json, write_json
from trainer.runs.store import Workspace

_LOOKS_VERSION = 1
"""Goes up when a look is made in another way, so that older ones are not used."""
_KEPT_REPORTS = 12
_CAPTIONS_READ: dict[tuple[str, int, int], str] = {}


@dataclasses.dataclass(frozen=True)
class Checked:
    """A report, when it was made (Unix seconds), and whether files have changed since."""

    report: Report
    time: float
    stale: bool


class Records:
    """The records of one folder in a workspace."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self._dir = workspace.cache_dir / "doctor" / folder_key(folder)
        self._left = edits_dir(workspace, folder) / "left_as_is.json"

    @property
    def names_path(self) -> Path:
        """Where the names of files for a fix are written down for its job."""
        return self._dir / "names.json"

    def looks(self) -> dict[str, Look]:
        """Looks of earlier checks by ``file_key``; empty when there are none that fit."""
        stored = _read(self._dir / "looks.json")
        if not isinstance(stored, dict) or stored.get("version") != _LOOKS_VERSION:
            return {}
        return {key: Look(**values) for key, values in stored["looks"].items()}

    def keep_looks(self, looks: dict[str, Look], earlier: dict[str, Look]) -> None:
        """Keep the looks of this check, and as many earlier ones: an undo may bring their files back."""
        others = [(key, look) for key, look in earlier.items() if key not in looks]
        kept = dict(others[-len(looks) :]) | looks if looks else dict(others)
        values = {key: dataclasses.asdict(look) for key, look in kept.items()}
        write_json(self._dir / "looks.json", {"version": _LOOKS_VERSION, "looks": values})

    def keep_report(self, state: str, report: Report) -> None:
        """Keep a report of the folder as it was in ``state``; the oldest ones are forgotten."""
        write_json(self._report_path(state), {"time": time.time(), "report": dataclasses.asdict(report)})
        for old in self._reports()[_KEPT_REPORTS:]:
            old.unlink(missing_ok=True)

    def checked(self, state: str) -> Checked | None:
        """The report on this state of the folder, else the latest one; None when the folder was never looked at."""
        for path in (self._report_path(state), *self._reports()):
            stored = _read(path)
            if isinstance(stored, dict):
                values = stored["report"]
                findings = [Finding.of_json(each) for each in values["findings"]]
                report = Report(**{**values, "findings": findings, "tags": [tuple(each) for each in values["tags"]]})
                return Checked(report, stored["time"], stale=path != self._report_path(state))
        return None

    def left_as_is(self) -> frozenset[tuple[str, str]]:
        """(code, path) of findings that somebody does not want to hear of again."""
        stored = _read(self._left)
        pairs = stored if isinstance(stored, list) else []
        return frozenset((str(pair[0]), str(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2)

    def leave_as_is(self, code: str, paths: Iterable[str]) -> None:
        """Do not tell this of these files any more."""
        pairs = self.left_as_is() | {(code, path) for path in paths}
        write_json(self._left, [list(pair) for pair in sorted(pairs)])

    def tell_again(self) -> None:
        """Forget what was to be left as it is."""
        self._left.unlink(missing_ok=True)

    def _report_path(self, state: str) -> Path:
        return self._dir / f"report-{state}.json"

    def _reports(self) -> list[Path]:
        return sorted(self._dir.glob("report-*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def file_key(path: Path) -> str:
    """Stands for a file's content: the same after a rename, another after a change. Raises OSError."""
    status = path.stat()
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def folder_state(folder: Path) -> str:
    """Stands for everything the doctor looks at: pictures and masks by size and time, captions by their bytes."""
    state = hashlib.sha256()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        _add(state, folder, Path(parent), names)
    for parent, folders, names in os.walk(folder / MASKS):
        folders.sort()
        _add(state, folder, Path(parent), names)
    return state.hexdigest()[:24]


def _add(state: Any, folder: Path, parent: Path, names: Iterable[str]) -> None:
    for name in sorted(names):
        path = parent / name
        is_caption = path.suffix in CAPTION_ENDINGS or name.startswith("meta")
        if not is_caption and not is_picture_file(path):
            continue
        try:
            status = path.stat()
            told = _caption_digest(path, status) if is_caption else f"{status.st_mtime_ns:x} {status.st_size:x}"
        except OSError:
            told = "gone"
        state.update(f"{path.relative_to(folder)}\0{told}\0".encode("utf-8", "surrogateescape"))


def _caption_digest(path: Path, status: os.stat_result) -> str:
    """Captions written back by an undo have a new time but the old text, so their bytes count; each is read once."""
    key = (str(path), status.st_mtime_ns, status.st_size)
    if key not in _CAPTIONS_READ:
        _CAPTIONS_READ[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return _CAPTIONS_READ[key]


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
