"""Taking pictures, captions and zip files into a dataset's folder without trusting their names or sizes.

Everything is first copied into a hidden folder of it, then moved picture by picture, the caption before its picture: an
upload that is cut short leaves whole files only. Nothing that is there is overwritten.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from trainer.curation.safe_names import name_problem, safe_path
from trainer.curation.settling import Arrival, Intake, settle
from trainer.data.image_files import PICTURE_ENDINGS
from trainer.data.own_captions import CAPTION_ENDINGS
from trainer.errors import UserError
from trainer.outputs import scratch_beside, space_problems

TABLES = {"metadata.jsonl", "metadata.csv"}
MAX_FILES = 50_000
MAX_TOTAL_BYTES = 20 * 2**30
MAX_FILE_BYTES = 512 * 2**20
MAX_RATIO = 200
"""A zip file that unpacks to more than so many times its size and RATIO_FREE_BYTES is a bomb: pictures hardly pack."""
RATIO_FREE_BYTES = 100 * 2**20
_CHUNK_BYTES = 1 << 20

Tell = Callable[[int], None]
"""Told how many files have been read."""


@dataclass(frozen=True)
class Upload:
    """A file that somebody gave: where it lies, and what they call it, perhaps with folders in front."""

    path: Path
    name: str


@dataclass
class _Budget:
    """How much may still be written."""

    files: int = field(default_factory=lambda: MAX_FILES)
    size: int = field(default_factory=lambda: MAX_TOTAL_BYTES)


@dataclass
class _Reception:
    """What has come in so far."""

    scratch: Path
    budget: _Budget
    tell: Tell
    arrivals: list[Arrival] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def dataset_folder(datasets_dir: Path, name: str) -> Path:
    """The folder of the dataset called ``name``. Raises UserError for a name that does not work as a folder's."""
    cleaned = name.strip()
    if problem := name_problem(cleaned, "name"):
        raise UserError.many([problem])
    return datasets_dir / cleaned


def take_in(uploads: Sequence[Upload], folder: Path, tell: Tell = lambda done: None) -> Intake:
    """Take pictures, caption files and the contents of zip files into ``folder``.

    What is there with the same content is left out; a picture whose name is taken comes in under another name, together
    with its caption.

    Raises UserError, and takes nothing in, when nothing is given, when it is more than MAX_FILES files or
    MAX_TOTAL_BYTES, when a zip file is a bomb, or when the disk is too full.
    """
    if not uploads:
        raise UserError("dataset.no_files", "No files are given.", "Choose pictures or a zip file.", "files")
    if short := space_problems(folder, sum(map(_declared_size, uploads))):
        raise UserError.many(short)
    with scratch_beside(folder / "incoming") as scratch:
        scratch.mkdir()
        reception = _Reception(scratch, _Budget(), tell)
        for number, upload in enumerate(uploads):
            if upload.path.suffix.lower() == ".zip":
                _receive_zip(upload, number + 1, reception)
                continue
            with upload.path.open("rb") as source:
                _receive(upload.name, source, 0, reception)
        intake = settle(reception.arrivals, folder, scratch)
    intake.skipped[:0] = reception.skipped
    return intake


def _declared_size(upload: Upload) -> int:
    if upload.path.suffix.lower() != ".zip":
        return upload.path.stat().st_size
    try:
        with zipfile.ZipFile(upload.path) as archive:
            return min(MAX_TOTAL_BYTES, sum(member.file_size for member in archive.infolist()))
    except (zipfile.BadZipFile, OSError):
        return 0  # told when it is read


def _receive_zip(upload: Upload, number: int, reception: _Reception) -> None:
    before = reception.budget.size
    most = RATIO_FREE_BYTES + MAX_RATIO * upload.path.stat().st_size
    try:
        with zipfile.ZipFile(upload.path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    _receive_member(archive, member, number, reception)
                if before - reception.budget.size > most:
                    message = f"{upload.name} unpacks to more than {MAX_RATIO} times its size."
                    raise UserError("dataset.bomb", message, "Pictures do not do that: give them as files.", "files")
    except (zipfile.BadZipFile, OSError) as error:
        reception.skipped.append((upload.name, f"it is not a whole zip file ({error})"))


def _receive_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, number: int, reception: _Reception) -> None:
    if stat.S_ISLNK(member.external_attr >> 16):
        reception.skipped.append((member.filename, "it is a link"))
        return
    try:
        with archive.open(member) as source:
            _receive(member.filename, source, number, reception)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        reception.skipped.append((member.filename, f"it cannot be unpacked ({error})"))


def _receive(name: str, source: IO[bytes], number: int, reception: _Reception) -> None:
    """Copy one file into the scratch folder, if its name is that of something wanted."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts):
        return  # what systems leave behind
    path = safe_path(name)
    if path is None:
        reception.skipped.append((name, "its path leads out of the folder"))
        return
    if not _is_wanted(path):
        inner = path.suffix.lower() == ".zip"
        reason = "it is a zip file within a zip file" if inner else "it is neither a picture nor a caption"
        reception.skipped.append((name, reason))
        return
    if reception.budget.files == 0:
        raise UserError("dataset.too_many", f"More than {MAX_FILES} files.", "Add them in parts.", "files")
    target = reception.scratch / f"{len(reception.arrivals):06}{path.suffix}"
    with target.open("wb") as out:
        fits = _copy(source, out, reception.budget)
    if not fits:
        target.unlink()
        reception.skipped.append((name, f"it is larger than {MAX_FILE_BYTES >> 20} MB"))
        return
    reception.budget.files -= 1
    reception.arrivals.append(Arrival(target, number, name, path))
    reception.tell(len(reception.arrivals))


def _copy(source: IO[bytes], out: IO[bytes], budget: _Budget) -> bool:
    """Copy and count what really comes, whatever a zip file's list says; False when it is too large for one file."""
    written = 0
    for chunk in _chunks(source):
        written += len(chunk)
        budget.size -= len(chunk)
        if written > MAX_FILE_BYTES:
            return False
        if budget.size < 0:
            raise UserError(
                "dataset.too_large", f"More than {MAX_TOTAL_BYTES >> 30} GB in all.", "Add them in parts.", "files"
            )
        out.write(chunk)
    return True


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk


def _is_wanted(path: PurePosixPath) -> bool:
    return path.name in TABLES or path.suffix.lower() in {*PICTURE_ENDINGS, *CAPTION_ENDINGS}
