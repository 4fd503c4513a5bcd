"""Captioning a whole folder: what is missing or everything, one picture at a time, so that it can end at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trainer.captioners.base import Captioner
from trainer.curation.caption_edits import append, prepend, put_trigger_first
from trainer.curation.edit_log import EditLog
from trainer.curation.steps import Change
from trainer.data.caption_tables import read_caption_tables
from trainer.data.folders import picture_files
from trainer.data.image_files import PICTURE_ERRORS, read_rgb, why_unreadable
from trainer.data.own_captions import OwnCaption, own_caption
from trainer.errors import StoppedOnRequest, UserError
from trainer.runs.events import EventSink


@dataclass(frozen=True)
class Wording:
    """What goes around a captioner's text: ``trigger, prefix text suffix``."""

    trigger: str = ""
    prefix: str = ""
    suffix: str = ""

    def around(self, text: str) -> str:
        """The caption as it is written."""
        if self.prefix.strip():
            text = prepend(f"{self.prefix.strip()} ")(text)
        if self.suffix.strip():
            joint = "" if self.suffix.lstrip().startswith((",", ".")) else " "
            text = append(joint + self.suffix.strip())(text)
        return put_trigger_first(self.trigger)(text) if self.trigger.strip() else text


@dataclass
class CaptionReport:
    """What was done: captions written, pictures that already had one, and (path, reason) of those skipped."""

    written: int = 0
    kept: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


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


def caption_folder(
    folder: Path, captioner: Captioner, wording: Wording, *, overwrite: bool, log: EditLog, events: EventSink
) -> CaptionReport:
    """Write a caption for each picture that lacks one, or for all.

    Each caption is written as soon as it is there, through the folder's edit log: the whole can be undone, and
    starting again goes on where it ended. A picture that cannot be read is skipped with a warning.

    Raises:
        UserError: no such folder, or no pictures in it.
        StoppedOnRequest: with a sentence on what is written.
    """
    captions = _captions(folder)
    todo = {path: own for path, own in captions.items() if overwrite or not own.text.strip()}
    report = CaptionReport(kept=len(captions) - len(todo))
    try:
        with log.growing("Automatic captions") as write:
            for done, (path, own) in enumerate(todo.items()):
                events.emit("progress", what="writing captions", done=done, total=len(todo))
                text = _caption(path, folder, captioner, report, events)
                if text is None:
                    continue
                change = Change(own.file.relative_to(folder).as_posix(), own.stored, wording.around(text))
                if write(change):
                    report.written += 1
                else:
                    _skip(path, folder, "its caption was changed meanwhile", report, events)
    except StoppedOnRequest as stop:
        told = f"Stopped: {report.written} of {len(todo)} captions are written. Start again to go on."
        raise StoppedOnRequest(told) from stop
    events.emit("progress", what="writing captions", done=len(todo), total=len(todo))
    return report


def _captions(folder: Path) -> dict[Path, OwnCaption]:
    """The captions there are; of pictures that share a caption file only the first is listed."""
    pictures, tables = check_folder(folder), read_caption_tables(folder)
    by_file: dict[Path, tuple[Path, OwnCaption]] = {}
    for path in pictures:
        own = own_caption(path, tables)
        by_file.setdefault(own.file, (path, own))
    return dict(by_file.values())


def _caption(path: Path, folder: Path, captioner: Captioner, report: CaptionReport, events: EventSink) -> str | None:
    try:
        image = read_rgb(path.read_bytes())
    except PICTURE_ERRORS as error:
        _skip(path, folder, why_unreadable(error), report, events)
        return None
    return captioner.captions([image], [path])[0]


def _skip(path: Path, folder: Path, reason: str, report: CaptionReport, events: EventSink) -> None:
    name = path.relative_to(folder).as_posix()
    report.skipped.append((name, reason))
    events.emit(
        "warning", code="caption.skipped", message=f"{name} was skipped: {reason}.", hint="Look at it, then try again."
    )
