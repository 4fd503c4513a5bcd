"""What the doctor keeps in the workspace for each folder: looks at files, reports, and findings to be left as they are.

A report belongs to one state of the folder. When an undo brings that state back, its report fits again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.curation.doctor.look import Look
from trainer.curation.doctor.report import Finding, Report
from trainer.curation.edit_log import edits_dir
from trainer.curation.mask_files import MASKS
from trainer.data.image_files import PICTURE_ENDINGS
from trainer.data.own_captions import CAPTION_ENDINGS
from trainer.files import folder_key, read_json, write_text
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

    def write_names(self, names: Sequence[str]) -> Path:
        """Write down the names of files for a job of fixes; there is one at a time. Returns where."""
        path = self._dir / "names.json"
        _write(path, list(names))
        return path

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
        _write(self._dir / "looks.json", {"version": _LOOKS_VERSION, "looks": values})

    def keep_report(self, state: str, report: Report) -> None:
        """Keep a report of the folder as it was in ``state``; the oldest ones are forgotten."""
        _write(self._report_path(state), {"time": time.time(), "report": dataclasses.asdict(report)})
        for old in self._reports()[_KEPT_REPORTS:]:
            old.unlink(missing_ok=True)

    @property
    def latest(self) -> str:
        """Differs after every check; empty when the folder was never looked at."""
        reports = self._reports()
        return f"{reports[0].name} {reports[0].stat().st_mtime_ns:x}" if reports else ""

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
        _write(self._left, [list(pair) for pair in sorted(pairs)])

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
    for line in sorted([*_states(str(folder), ""), *_states(str(folder / MASKS), MASKS)]):
        state.update(f"{line}\0".encode("utf-8", "surrogateescape"))
    return state.hexdigest()[:24]


def _states(folder: str, prefix: str) -> Iterator[str]:
    """A line for each file. Plain strings, not paths: a folder of 10,000 pictures is gone through for each edit."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        name = entry.name
        if name.startswith((".", "__MACOSX")):
            continue
        ending = os.path.splitext(name)[1].lower()  # noqa: PTH122
        if ending in PICTURE_ENDINGS:
            yield f"{prefix}/{name}\0{_told(entry, is_caption=False)}"
        elif ending in CAPTION_ENDINGS or name.startswith("meta"):
            yield f"{prefix}/{name}\0{_told(entry, is_caption=True)}"
        elif entry.is_dir(follow_symlinks=False):
            yield from _states(entry.path, f"{prefix}/{name}")


def _told(entry: os.DirEntry[str], *, is_caption: bool) -> str:
    """What stands for one file. A caption written back by an undo has a new time but the old text: its bytes count."""
    try:
        status = entry.stat()
        if not is_caption:
            return f"{status.st_mtime_ns:x} {status.st_size:x}"
        key = (entry.path, status.st_mtime_ns, status.st_size)
        if key not in _CAPTIONS_READ:
            _CAPTIONS_READ[key] = hashlib.sha256(Path(entry.path).read_bytes()).hexdigest()
        return _CAPTIONS_READ[key]
    except OSError:
        return "unreadable"


def _write(path: Path, values: Any) -> None:
    """As ASCII: names of files need not be UTF-8, and what stands for their odd bytes cannot be encoded."""
    write_text(path, json.dumps(values))


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
