"""What the doctor found in a folder, as the page shows it: without what is to be left as it is, and whether it is old.

No Gradio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.curation.doctor import Finding, Report
from trainer.curation.doctor.records import Records, folder_state
from trainer.curation.edit_log import EditLog
from trainer.curation.fixes.offers import BACKGROUNDS, CAPTION, FIXES, SAFE
from trainer.data.image_files import is_picture_file
from trainer.errors import UserError
from trainer.runs.store import Workspace

Addresses = Callable[[Sequence[str]], list[str]]
"""Where the page finds the small versions of pictures, by their names within the folder."""

_RECENT_SECONDS = 15.0
_SHOWN_PICTURES = 6
_HAVE_CAPTIONED = "Have these captioned"


@dataclass(frozen=True)
class Diagnosis:
    """The doctor's last word on a folder.

    Attributes:
        findings: those that are to be told.
        checked: when it was made, Unix seconds; None when the folder was never looked at.
        stale: whether files have changed since.
        left: how many files there are of which something is not told.
        report: all of it; None when the folder was never looked at.
    """

    findings: tuple[Finding, ...] = ()
    checked: float | None = None
    stale: bool = False
    left: int = 0
    report: Report | None = None

    def named(self, key: Any) -> tuple[int, Finding]:
        """The finding of this key and its number. Raises UserError when it is not, or no longer, told."""
        for number, finding in enumerate(self.findings):
            if finding.key == key:
                return number, finding
        raise UserError("check.gone", "The findings have changed meanwhile.", "Look at the list again.")

    def as_json(self) -> list[dict[str, Any]]:
        """The findings as plain values."""
        return [asdict(finding) for finding in self.findings]


class Diagnoses:
    """Reads what the doctor left in the workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._states: dict[Path, tuple[tuple[str, str], float, str]] = {}
        self._known: dict[Path, tuple[Any, Diagnosis]] = {}

    def records(self, folder: Path) -> Records:
        """The doctor's records of a folder."""
        return Records(self._workspace, folder)

    def read(self, folder: Path) -> Diagnosis:
        """The diagnosis that fits the folder as it is, or was some seconds ago; else the latest, as stale."""
        records = self.records(folder)
        latest = records.latest
        if not latest:
            return Diagnosis()
        key = (latest, self._state(folder, latest), records.left_as_is())
        known = self._known.get(folder)
        if known is None or known[0] != key:
            known = (key, _diagnosis(records, *key[1:]))
            self._known[folder] = known
        return known[1]

    def look_again(self, folder: Path) -> None:
        """Go through the folder's files at the next ``read``, however recently that was done."""
        self._states.pop(folder, None)

    def _state(self, folder: Path, latest: str) -> str:
        """The folder's state, gone through again after each edit and each check, else after some seconds."""
        version = (EditLog.of(self._workspace, folder).version(), latest)
        known = self._states.get(folder)
        if known is None or known[0] != version or time.monotonic() - known[1] > _RECENT_SECONDS:
            known = (version, time.monotonic(), folder_state(folder))
            self._states[folder] = known
        return known[2]


def _diagnosis(records: Records, state: str, left_as_is: frozenset[tuple[str, str]]) -> Diagnosis:
    checked = records.checked(state)
    if checked is None:
        return Diagnosis()
    told = [rest for each in checked.report.findings if (rest := each.without(left_as_is)) is not None]
    left = sum(len(each.paths) for each in checked.report.findings) - sum(len(each.paths) for each in told)
    return Diagnosis(tuple(told), checked.time, checked.stale, left, checked.report)


def panel(diagnosis: Diagnosis, addresses: Addresses) -> dict[str, Any]:
    """What the browser needs to show the findings. Names and captions in it are text, whatever they look like."""
    if diagnosis.checked is None:
        return {}
    return {
        "checked": diagnosis.checked,
        "stale": diagnosis.stale,
        "left": diagnosis.left,
        "safe": _safe_fixes(diagnosis.findings),
        "findings": [_shown(finding, addresses) for finding in diagnosis.findings],
    }


def _shown(finding: Finding, addresses: Addresses) -> dict[str, Any]:
    pictures = [name for name in finding.paths if is_picture_file(Path(name)) and not name.startswith(".")]
    first = pictures[:_SHOWN_PICTURES]
    return {
        "key": finding.key,
        "code": finding.code,
        "severity": finding.severity,
        "message": finding.message,
        "hint": finding.hint,
        "count": len(pictures),
        "names": [] if pictures else list(finding.paths[:_SHOWN_PICTURES]),
        "pictures": [{"name": name, "address": address} for name, address in zip(first, addresses(first), strict=True)],
        "keep": finding.keep,
        "choices": list(finding.paths) if finding.keep else [],
        "fixes": [_offer(fix, finding) for fix in finding.fixes],
    }


def _offer(fix: str, finding: Finding) -> dict[str, Any]:
    if fix == CAPTION:
        return {"fix": fix, "label": _HAVE_CAPTIONED}
    backgrounds = list(BACKGROUNDS.items()) if fix == "background" else []
    promise = _promise(fix, len(finding.targets))
    return {"fix": fix, "label": FIXES[fix].label, "promise": promise, "backgrounds": backgrounds}


def _safe_fixes(findings: Sequence[Finding]) -> dict[str, Any]:
    """How many files the safe fixes are for, and what each of these fixes will do."""
    files = {fix: set[str]() for fix in FIXES}
    for finding in findings:
        for fix in finding.fixes:
            if (finding.code, fix) in SAFE:
                files[fix].update(finding.targets)
    promises = [_promise(fix, len(names)) for fix, names in files.items() if names]
    return {"count": len(set[str]().union(*files.values())), "promises": promises}


def _promise(fix: str, count: int) -> str:
    return FIXES[fix].promise.format(count="1 file" if count == 1 else f"{count} files")
