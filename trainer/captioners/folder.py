"""Captioning a folder: which pictures, what becomes of the captions there are, and going on where a job ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from trainer.captioners.base import Captioner
from trainer.captioners.describing import Described, Subject, described
from trainer.captioners.drafts import Draft, DraftFile
from trainer.captioners.wording import Wording, joined, unique_lines
from trainer.curation.edit_log import EditLog, Outcome
from trainer.curation.picture_sets import unknown_names
from trainer.curation.steps import Step
from trainer.data.caption_tables import read_caption_tables
from trainer.data.folders import picture_files
from trainer.data.own_captions import own_caption
from trainer.errors import JobFailed, Problem, StoppedOnRequest, UserError
from trainer.files import is_of_the_disk
from trainer.runs.events import EventSink

Mode = Literal["missing", "overwrite", "append", "prepend"]
"""What becomes of a caption that is there: kept, replaced, or joined with the new one behind it or in front."""

TITLE = "Automatic captions"
CHANGED = "its caption was changed meanwhile"


@dataclass(frozen=True)
class CaptionOrder:
    """What is asked of a caption job, apart from the captioner.

    Attributes:
        mode: what becomes of captions that are there.
        new_line: whether a caption that is added becomes a line of its own.
        wording: what becomes of the captioner's texts.
        times: texts per picture; different ones become the lines of its caption.
        batch_size: pictures at a time.
        afresh: caption those pictures too whose caption is there from a run that was cut short.
    """

    mode: Mode = "missing"
    new_line: bool = False
    wording: Wording = field(default_factory=Wording)
    times: int = 1
    batch_size: int = 1
    afresh: bool = False

    def caption(self, old: str, new: str) -> str:
        """What a picture's caption becomes."""
        if self.mode in ("append", "prepend"):
            return joined(old, new, in_front=self.mode == "prepend", new_line=self.new_line)
        return new


@dataclass
class CaptionReport:
    """What was done: captions written or drafted, pictures left as they are, and (name, reason) of those skipped."""

    written: int = 0
    kept: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


class Target(Protocol):
    """Where captions go."""

    doing: str
    """Such as "writing captions"."""
    run: str
    """Which run of which job this is, see ``DraftFile.run``."""

    def has(self, subject: Subject) -> bool:
        """Whether the picture's caption is there already, from a run that was cut short or by somebody's decision."""

    def take(self, drafts: Sequence[Draft]) -> list[tuple[str, str]]:
        """Keep captions; answers with the pictures whose captions could not be kept, each with the reason."""

    def finish(self) -> None:
        """The job came to its end."""


class Writer:
    """Writes captions as steps of an edit that can be undone.

    What is about to be written is noted first: by that note the same job, started again, knows which captions are its
    own, even when it was killed in between. A caption that was undone or edited meanwhile is no longer one of them.

    Args:
        write: does a step, as from ``EditLog.growing``.
        note: what earlier runs of this job that were cut short have written.
        key: names the job.
    """

    doing = "writing captions"

    def __init__(self, write: Callable[[Step], bool], note: DraftFile, key: str) -> None:
        self.run = note.run(key)
        self._write = write
        self._note = note
        self._noted = note.read()

    def has(self, subject: Subject) -> bool:
        draft = self._noted.get(subject.name)
        return draft is not None and draft.state_in(self._note.folder) == "written"

    def take(self, drafts: Sequence[Draft]) -> list[tuple[str, str]]:
        self._note.add(drafts)
        return [(draft.name, reason) for draft in drafts if (reason := self._refusal(draft))]

    def _refusal(self, draft: Draft) -> str:
        """Why the caption could not be written; empty when it is. Raises OSError where no other can be, either."""
        try:
            return "" if self._write(draft.change) else CHANGED
        except OSError as error:
            if is_of_the_disk(error):
                raise
            return _unwritable(error.strerror or str(error))

    def finish(self) -> None:
        self._note.drop(self._note.read())


class Drafter:
    """Keeps captions as drafts for looking over; what was accepted already stays as it is."""

    doing = "drafting captions"

    def __init__(self, drafts: DraftFile, key: str) -> None:
        self.run = drafts.run(key)
        self._drafts = drafts
        self._key = key
        self._known = drafts.read()

    def has(self, subject: Subject) -> bool:
        draft = self._known.get(subject.name)
        return draft is not None and (draft.decision == "accepted" or draft.run == self.run)

    def take(self, drafts: Sequence[Draft]) -> list[tuple[str, str]]:
        self._drafts.add(drafts)
        return []

    def finish(self) -> None:
        self._drafts.finish(self._key)


def check_folder(folder: Path) -> list[Path]:
    """The folder's pictures. Raises UserError when there is no such folder or no picture in it."""
    if not folder.is_dir():
        raise UserError("dataset.missing_folder", f"The folder {folder} does not exist.", "Check the path.", "folder")
    pictures = picture_files(folder)
    if not pictures:
        raise UserError(
            "dataset.no_pictures", f"The folder {folder} holds no pictures.", "Choose the folder with them.", "folder"
        )
    return pictures


def subjects(folder: Path, names: Iterable[str] | None = None) -> list[Subject]:
    """The folder's pictures with their captions; of those that share a caption file only the first.

    Args:
        folder: the folder of pictures.
        names: the pictures that are meant, relative to the folder; None for all.

    Raises UserError: no such folder, no pictures in it, or names that are not in it.
    """
    pictures, tables = check_folder(folder), read_caption_tables(folder)
    by_name = {path.relative_to(folder).as_posix(): path for path in pictures}
    wanted = by_name if names is None else _named(by_name, list(names))
    by_file: dict[Path, Subject] = {}
    for name, path in wanted.items():
        own = own_caption(path, tables)
        by_file.setdefault(own.file, Subject(name, path, own, own.file.relative_to(folder).as_posix()))
    return list(by_file.values())


def caption_pictures(
    pictures: Sequence[Subject], captioner: Captioner, order: CaptionOrder, target: Target, events: EventSink
) -> CaptionReport:
    """Caption what is still without, or everything, each caption being kept as soon as it is there.

    A picture that cannot be read or described is skipped with a warning.

    Raises:
        StoppedOnRequest: with a sentence on what is done.
        UserError: the memory is too small, or a caption cannot be noted for undo.
        JobFailed: the captioner fails on picture after picture, or the disk is full or refuses.
    """
    todo = [subject for subject in pictures if _is_wanted(subject, order, target)]
    report = CaptionReport(kept=len(pictures) - len(todo))
    progress = _Progress(target.doing, len(todo), events)
    progress.tell()
    try:
        for batch in described(todo, captioner, order.batch_size, order.times):
            _take(batch, order, target, report, events)
            progress.done += len(batch)
            progress.tell()
        target.finish()
    except StoppedOnRequest as stop:
        told = f"Stopped: {report.written} of {len(todo)} captions are there. Start again to go on."
        raise StoppedOnRequest(told) from stop
    except OSError as error:
        raise _disk_refuses(error, report, len(todo)) from error
    return report


def write_drafts(drafts: DraftFile, log: EditLog, wanted: Mapping[str, Draft]) -> Outcome:
    """Write drafts as one edit; those that could not be written stay drafts, see ``left_alone``."""
    new = {name: draft for name, draft in wanted.items() if draft.state_in(drafts.folder) != "written"}
    outcome = log.apply(TITLE, [draft.change for draft in new.values()]) if new else Outcome(TITLE, 0)
    left = left_alone(outcome)
    drafts.drop(name for name, draft in wanted.items() if draft.file not in left)
    return outcome


def left_alone(outcome: Outcome) -> dict[str, str]:
    """Caption files that were not written, each with the reason."""
    return {
        **dict.fromkeys(outcome.conflicts, CHANGED),
        **{name: _unwritable(reason) for name, reason in outcome.failed},
    }


def _named(by_name: Mapping[str, Path], names: list[str]) -> dict[str, Path]:
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise unknown_names(unknown)
    return {name: by_name[name] for name in names}


def _unwritable(reason: str) -> str:
    return f"its caption file cannot be written ({reason})"


def _disk_refuses(error: OSError, report: CaptionReport, wanted: int) -> JobFailed:
    message = f"Captions cannot be written: {error.strerror}. {report.written} of {wanted} are there."
    return JobFailed(Problem("caption.disk", message, "See to the disk, then start again: the job goes on."))


def _is_wanted(subject: Subject, order: CaptionOrder, target: Target) -> bool:
    if order.mode == "missing" and subject.own.text.strip():
        return False
    return order.afresh or not target.has(subject)


def _take(
    batch: Iterable[Described], order: CaptionOrder, target: Target, report: CaptionReport, events: EventSink
) -> None:
    """Hand a batch's captions to the target, and report what became of each picture."""
    drafts = []
    for subject, texts in batch:
        if isinstance(texts, str):
            _skip(subject.name, texts, report, events)
        elif not (caption := _caption(order, subject, texts)):
            _skip(subject.name, "the captioner has nothing to say", report, events)
        elif caption == subject.own.stored:
            report.kept += 1
        else:
            own = subject.own
            drafts.append(Draft(subject.name, subject.caption_name, own.stored, own.text, caption, target.run))
    refused = target.take(drafts) if drafts else []
    for name, reason in refused:
        _skip(name, reason, report, events)
    report.written += len(drafts) - len(refused)


def _caption(order: CaptionOrder, subject: Subject, texts: Sequence[str]) -> str:
    new = unique_lines(map(order.wording.caption, texts))
    return order.caption(subject.own.text, new) if new else ""


def _skip(name: str, reason: str, report: CaptionReport, events: EventSink) -> None:
    report.skipped.append((name, reason))
    events.emit(
        "warning", code="caption.skipped", message=f"{name} was skipped: {reason}.", hint="Look at it, then try again."
    )


@dataclass
class _Progress:
    """Tells how far the job is; the time left comes from the speed so far."""

    doing: str
    total: int
    events: EventSink
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def tell(self) -> None:
        elapsed = time.monotonic() - self.started
        left = elapsed / self.done * (self.total - self.done) if self.done else None
        self.events.emit(
            "progress",
            what=self.doing,
            done=self.done,
            total=self.total,
            unit="pictures",
            seconds_left=round(left, 1) if left is not None else None,
        )
