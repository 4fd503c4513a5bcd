"""From findings to fixed files: which file gets which fixes, the steps of each, and carrying them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainer.curation.doctor.report import Finding
from trainer.curation.edit_log import EditLog
from trainer.curation.fixes.names import rename_ending, rename_plain, separate, set_file_aside, to_utf8
from trainer.curation.fixes.offers import FIXES, SAFE
from trainer.curation.fixes.pixels import Values, rewrite
from trainer.curation.fixes.texts import text_edit, text_steps
from trainer.curation.steps import Step
from trainer.data.image_files import PICTURE_ERRORS, why_unreadable
from trainer.errors import StoppedOnRequest, UserError
from trainer.runs.events import EventSink

_RENAMING: dict[str, Callable[[Path, str], Iterator[Step]]] = {
    "separate": separate,
    "rename_plain": rename_plain,
    "rename_ending": rename_ending,
}
"""Fixes that give a picture another name; of those for one picture, the first is made."""


@dataclass(frozen=True)
class Order:
    """What is to be done: the fixes of each file, by its name within the folder, and what they need to know."""

    fixes: Mapping[str, tuple[str, ...]]
    values: Values = field(default_factory=dict)


@dataclass
class Outcome:
    """Names of files that were fixed, and (name, reason) of those left alone."""

    fixed: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


def order_of(fix: str, names: Iterable[str], values: Values) -> Order:
    """One fix for some files. Raises UserError when there is no such fix."""
    if fix not in FIXES:
        raise UserError("fix.unknown", f"fix: there is no {fix!r}.", f"There are {', '.join(FIXES)}.", "fix")
    return Order(dict.fromkeys(names, (fix,)), values)


def safe_order(findings: Iterable[Finding]) -> Order:
    """All fixes that need no look first, for the files that findings name."""
    fixes: dict[str, list[str]] = {}
    for finding in findings:
        for fix in finding.fixes:
            if (finding.code, fix) in SAFE:
                for name in finding.targets:
                    fixes.setdefault(name, []).append(fix)
    return Order({name: tuple(dict.fromkeys(some)) for name, some in fixes.items()})


def carry_out_order(folder: Path, order: Order, title: str, log: EditLog, events: EventSink) -> Outcome:
    """Fix file after file as one edit that Undo takes back; killed at any moment, what is done can be undone.

    A file that cannot be fixed, or is in the dataset no more, is left alone with a warning.

    Raises:
        StoppedOnRequest: with a sentence on what is done.
        UserError: for values that a fix cannot use.
    """
    outcome = Outcome()
    try:
        with log.growing(title) as do:
            for done, (name, fixes) in enumerate(order.fixes.items()):
                events.emit("progress", what="fixing", done=done, total=len(order.fixes))
                reason = _fix_one(folder, name, fixes, order.values, do)
                if reason:
                    outcome.left.append((name, reason))
                    events.emit("warning", code="fix.left", message=f"{name} was left alone: {reason}.", hint="")
                else:
                    outcome.fixed.append(name)
    except StoppedOnRequest as stop:
        raise StoppedOnRequest(f"stopped; {len(outcome.fixed)} files are fixed") from stop
    events.emit("progress", what="fixing", done=len(order.fixes), total=len(order.fixes))
    return outcome


def _fix_one(folder: Path, name: str, fixes: tuple[str, ...], values: Values, do: Callable[[Step], bool]) -> str:
    """Why a file was left alone, as a clause; empty when it is fixed."""
    path = folder / name
    if not path.is_file() or not path.resolve().is_relative_to(folder):
        return "it is not in the folder any more"
    try:
        done = all(do(step) for step in steps_of(folder, name, fixes, values))
    except PICTURE_ERRORS as error:
        return why_unreadable(error)
    return "" if done else "its files changed meanwhile"


def steps_of(folder: Path, name: str, fixes: tuple[str, ...], values: Values) -> list[Step]:
    """The steps that make these fixes to one file; they do not touch the same file twice.

    Pixels are made in one go. A file set aside is not fixed otherwise, and a name is given by one fix only, as new
    pixels come with the ending that fits; what is left over is found again. Raises one of PICTURE_ERRORS, and
    UserError for values that a fix cannot use.
    """
    if "set_aside" in fixes:
        return list(set_file_aside(folder, name))
    steps: list[Step] = []
    pixels = [fix for fix in fixes if FIXES[fix].kind == "pixels"]
    renaming = next((make for fix, make in _RENAMING.items() if fix in fixes), None)
    if pixels:
        steps += rewrite(folder, name, pixels, values)
    elif renaming is not None:
        steps += renaming(folder, name)
    if "to_utf8" in fixes:
        taken = {step.name for step in steps}
        steps += [step for step in to_utf8(folder, name) if step.name not in taken]
    for fix in fixes:
        edit = text_edit(fix, values)
        steps += text_steps(folder, [name], edit) if edit is not None else []
    return steps
