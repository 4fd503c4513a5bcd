"""Looking a folder of pictures over before training: what is broken, there twice, or has its caption wrong."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image

from trainer.config import DatasetSettings, Source
from trainer.curation import similar
from trainer.curation.caption_edits import count_tags
from trainer.data.caption_files import read_caption_file
from trainer.data.datasets_library import is_library_dataset, unpacked_dataset
from trainer.data.folders import Collection, Picture, collect_source
from trainer.data.image_files import MAX_PREVIEW_PIXELS, PICTURE_ERRORS, why_unreadable
from trainer.errors import UserError
from trainer.runs.events import EventSink

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

EXTREME_ASPECT = 3.0
CLIP_TOKENS = 75
_FORMAT_ENDINGS = {
    "PNG": {".png"},
    "JPEG": {".jpg", ".jpeg"},
    "MPO": {".jpg", ".jpeg"},  # several JPEGs in one file, as some cameras write them
    "WEBP": {".webp"},
    "BMP": {".bmp"},
    "AVIF": {".avif"},
}
_ORIENTATION = 0x0112
_SHOWN_PATHS = 5
_SHOWN_CAPTION = 80
_REPLACE = "Replace or remove it; training leaves it out."
_WORKERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Finding:
    """Something worth knowing about some of the files.

    Attributes:
        code: stable name such as ``picture.unreadable``.
        severity: error: left out of training; warning: likely to hurt; info: good to know.
        paths: the files, relative to the folder.
        message: what was found.
        hint: what to do about it.
    """

    code: str
    severity: Severity
    paths: tuple[str, ...]
    message: str
    hint: str


@dataclass(frozen=True)
class Report:
    """What ``examine`` found, errors first. ``captions`` counts pictures that have one; ``tags`` by frequency."""

    folder: str
    pictures: int
    captions: int
    findings: list[Finding]
    tags: list[tuple[str, int]]


@dataclass
class _Look:
    """What one picture file shows. Notes are (code, severity, message, hint)."""

    notes: list[tuple[str, Severity, str, str]] = field(default_factory=list)
    digest: str = ""
    fingerprint: similar.Fingerprint | None = None

    def note(self, code: str, severity: Severity, message: str, hint: str) -> None:
        self.notes.append((code, severity, message, hint))


def examine(folder: Path, resolution: int, events: EventSink) -> Report:
    """Look at every picture and caption under ``folder``. A broken picture is a finding, never a failure.

    Args:
        folder: pictures in it and below it are looked at.
        resolution: side in pixels that training is meant for; tells which pictures are too small.
        events: told ``progress``.

    Raises:
        UserError: there is no such folder, or nothing in it that is meant to be a picture.
    """
    folder = folder.expanduser().resolve()
    if is_library_dataset(str(folder)):
        folder = unpacked_dataset(Source(path=str(folder)), "dataset")
    settings = DatasetSettings()
    collection, problem = collect_source(0, Source(path=str(folder)), settings.caption_extension)
    if problem is not None and not collection.skipped:
        raise UserError(problem.code, problem.message.partition(": ")[2].capitalize(), problem.hint)
    looks = _look_at_all([picture.path for picture in collection.pictures], resolution, events)
    report = _Findings(folder)
    for picture in collection.skipped:
        report.add("picture.unreadable", "error", [picture.path], f"Cannot be used: {picture.reason}.", _REPLACE)
    _picture_findings(looks, report)
    _duplicate_findings(looks, report)
    _caption_findings(collection, settings.caption_extension, report)
    for warning in collection.warnings:
        report.add(warning.code, "warning", [], warning.message, warning.hint)
    captions = [picture.caption for picture in collection.pictures if picture.caption.strip()]
    return Report(
        folder=str(folder),
        pictures=len(collection.pictures) + len(collection.skipped),
        captions=len(captions),
        findings=report.sorted(),
        tags=count_tags(captions),
    )


class _Findings:
    """Collects findings; files with the same message come together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[tuple[str, Severity, str, str], list[str]] = {}

    def add(self, code: str, severity: Severity, paths: Iterable[Path], message: str, hint: str) -> None:
        names = [path.relative_to(self._folder).as_posix() for path in paths]
        self._found.setdefault((code, severity, message, hint), []).extend(names)

    def sorted(self) -> list[Finding]:
        found = [
            Finding(code, severity, tuple(sorted(paths)), message, hint)
            for (code, severity, message, hint), paths in self._found.items()
        ]
        return sorted(found, key=lambda item: (SEVERITIES.index(item.severity), item.code, item.paths))


def _look_at_all(paths: list[Path], resolution: int, events: EventSink) -> dict[Path, _Look]:
    looks: dict[Path, _Look] = {}
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        for path, look in zip(paths, pool.map(lambda path: _look_at(path, resolution), paths), strict=True):
            looks[path] = look
            events.emit("progress", what="looking at pictures", done=len(looks), total=len(paths))
    finally:
        pool.shutdown(cancel_futures=True)  # a request to stop must not wait for the pictures still queued
    return looks


def _look_at(path: Path, resolution: int) -> _Look:
    look = _Look()
    try:
        data = path.read_bytes()
        look.digest = hashlib.sha256(data).hexdigest()
        with Image.open(io.BytesIO(data)) as image:
            _note_shape(look, image, resolution)
            _note_format(look, image, path)
            if image.width * image.height <= MAX_PREVIEW_PIXELS:
                image.draft("RGB", (256, 256))  # decodes a JPEG to its end, at an eighth of the work
                image.load()
                _note_transparency(look, image)
                look.fingerprint = similar.fingerprint(image)
    except PICTURE_ERRORS as error:
        look.note("picture.unreadable", "error", f"Cannot be used: {why_unreadable(error)}.", _REPLACE)
    return look


def _note_shape(look: _Look, image: Image.Image, resolution: int) -> None:
    short, long = sorted(image.size)
    if short < resolution / 2:
        message = f"Shorter side under {resolution // 2} px, half of the resolution {resolution}."
        look.note("picture.tiny", "warning", message, "Use larger pictures, or train at a lower resolution.")
    if short * long > MAX_PREVIEW_PIXELS:
        message = f"More than {MAX_PREVIEW_PIXELS // 1_000_000} million pixels."
        look.note("picture.huge", "warning", message, "Save a smaller copy: nothing is gained by so many.")
    if long > EXTREME_ASPECT * short:
        message = f"More than {EXTREME_ASPECT:g} times as long as wide."
        look.note("picture.extreme_aspect", "info", message, "Much of it may be cropped away: crop it yourself.")


def _note_format(look: _Look, image: Image.Image, path: Path) -> None:
    kind = str(image.format)
    if path.suffix.lower() not in _FORMAT_ENDINGS.get(kind, set()):
        message = f"The ending does not fit: this is a {kind} file."
        look.note("picture.wrong_extension", "info", message, "Rename it, so that other programs can open it too.")
    if getattr(image, "n_frames", 1) > 1 and kind != "MPO":
        look.note("picture.animated", "info", "Moves: only the first frame is used.", "Save the frame you want.")
    if image.mode == "CMYK":
        look.note("picture.cmyk", "info", "CMYK: colours are converted, and may shift.", "Save it as RGB.")
    if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
        message = "Turned upright by a mark in the file (EXIF)."
        look.note("picture.rotated", "info", message, "Nothing to do: training turns it as you see it.")


def _note_transparency(look: _Look, image: Image.Image) -> None:
    if image.has_transparency_data and not _is_opaque(image):
        hint = "Put it on a background of your choice if white does not suit."
        look.note("picture.transparent", "info", "Transparent parts become white.", hint)


def _is_opaque(image: Image.Image) -> bool:
    least, _ = image.convert("RGBA").getchannel("A").getextrema()
    return least == 255


def _picture_findings(looks: dict[Path, _Look], report: _Findings) -> None:
    for path, look in looks.items():
        for code, severity, message, hint in look.notes:
            report.add(code, severity, [path], message, hint)


def _duplicate_findings(looks: dict[Path, _Look], report: _Findings) -> None:
    by_digest: dict[str, list[Path]] = defaultdict(list)
    for path, look in looks.items():
        by_digest[look.digest].append(path)
    first_ones = []
    for digest, paths in by_digest.items():
        if digest and len(paths) > 1:
            message = f"The same file {len(paths)} times: {_named(paths)}."
            report.add("picture.duplicate", "warning", paths, message, "Keep one; use repeats to weight it.")
        if looks[paths[0]].fingerprint is not None:
            first_ones.append(paths[0])
    prints = [fingerprint for path in first_ones if (fingerprint := looks[path].fingerprint) is not None]
    for group in similar.alike(prints):
        paths = [first_ones[index] for index in group]
        message = f"Look almost the same: {_named(paths)}."
        report.add("picture.near_duplicate", "warning", paths, message, "Keep the best one.")


def _caption_findings(collection: Collection, extension: str, report: _Findings) -> None:
    by_caption: dict[str, list[Path]] = defaultdict(list)
    for picture in collection.pictures:
        _note_caption(picture, report)
        by_caption[picture.caption.strip()].append(picture.path)
    for caption, paths in by_caption.items():
        if caption and len(paths) > 1:
            shown = caption if len(caption) <= _SHOWN_CAPTION else f"{caption[:_SHOWN_CAPTION]}..."
            message = f"{len(paths)} pictures have the same caption: {shown}"
            report.add("caption.identical", "info", paths, message, "Say what differs, unless it is meant so.")
    pictures = [picture.path for picture in collection.pictures] + [picture.path for picture in collection.skipped]
    _note_shared_files(pictures, extension, report)
    stems = {path.with_suffix("") for path in pictures}
    for parent in sorted({path.parent for path in pictures}):
        lonely = [path for path in sorted(parent.glob(f"*{extension}")) if path.with_suffix("") not in stems]
        if lonely:
            report.add("caption.no_picture", "info", lonely, "Caption without a picture.", "Check the file's name.")


def _note_caption(picture: Picture, report: _Findings) -> None:
    if not picture.has_caption:
        hint = "Write one, or have a captioner write it."
        report.add("caption.missing", "warning", [picture.path], "No caption.", hint)
    elif not picture.caption.strip():
        report.add("caption.empty", "warning", [picture.path], "The caption is empty.", "Write one.")
    if len(re.findall(r"\w+", picture.caption)) > CLIP_TOKENS:
        message = f"The caption has more words than the {CLIP_TOKENS} tokens that are read."
        report.add("caption.long", "info", [picture.path], message, "Shorten it, or set the caption length to 150.")
    file = read_caption_file(picture.caption_path) if picture.caption_path else None
    if file is not None and file.encoding != "utf-8":
        message = f"The caption file is stored as {file.encoding}, not as plain UTF-8."
        report.add("caption.encoding", "info", [picture.path], message, "Saving it on the Dataset tab makes it UTF-8.")


def _note_shared_files(pictures: list[Path], extension: str, report: _Findings) -> None:
    by_stem: dict[Path, list[Path]] = defaultdict(list)
    for path in pictures:
        by_stem[path.with_suffix(extension)].append(path)
    for caption_file, paths in by_stem.items():
        if len(paths) > 1:
            message = f"{_named(paths)} share the caption file {caption_file.name}."
            report.add("caption.shared", "warning", paths, message, "Rename one of the pictures.")


def _named(paths: list[Path]) -> str:
    names = [path.name for path in paths[:_SHOWN_PATHS]]
    return ", ".join(names) + (f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else "")
