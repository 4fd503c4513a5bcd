"""Taking pictures, captions and zip files into a dataset's folder without trusting their names or sizes."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from trainer.data.image_files import PICTURE_ENDINGS
from trainer.data.own_captions import CAPTION_ENDINGS
from trainer.errors import UserError
from trainer.files import atomic_path

TABLES = {"metadata.jsonl", "metadata.csv"}
MAX_FILES = 50_000
MAX_TOTAL_BYTES = 20 * 2**30
MAX_FILE_BYTES = 512 * 2**20
_CHUNK_BYTES = 1 << 20
_UNSAFE = re.compile(r'[\x00-\x1f<>:"|?*\\/]')


@dataclass
class Intake:
    """What came in: number of files added, and (name, reason) of those left out."""

    added: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Budget:
    """How much may still be written."""

    files: int = MAX_FILES
    size: int = MAX_TOTAL_BYTES


def dataset_folder(datasets_dir: Path, name: str) -> Path:
    """The folder of the dataset called ``name``. Raises UserError for a name that does not work as a folder's."""
    cleaned = name.strip()
    if not cleaned or cleaned.startswith(".") or _UNSAFE.search(cleaned) or len(cleaned) > 80:
        raise UserError(
            "dataset.name",
            f"The name {name!r} does not work as a folder's name.",
            'Use letters, numbers, spaces, - and _; no / \\ : * ? " < > |, no dot in front.',
            "name",
        )
    return datasets_dir / cleaned


def take_in(files: list[Path], folder: Path) -> Intake:
    """Copy pictures, caption files and the contents of zip files into ``folder``. Nothing there is overwritten.

    Raises UserError when nothing is given, or when it is more than MAX_FILES files or MAX_TOTAL_BYTES.
    """
    if not files:
        raise UserError("dataset.no_files", "No files are given.", "Choose pictures or a zip file.", "files")
    intake, budget = Intake(), _Budget()
    for path in files:
        if path.suffix.lower() == ".zip":
            _take_zip(path, folder, intake, budget)
            continue
        with path.open("rb") as source:
            _take_one(PurePosixPath(path.name), source, folder, intake, budget)
    return intake


def _take_zip(path: Path, folder: Path, intake: Intake, budget: _Budget) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    _take_member(archive, member, folder, intake, budget)
    except (zipfile.BadZipFile, OSError) as error:
        intake.skipped.append((path.name, f"it is not a whole zip file ({error})"))


def _take_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, intake: Intake, budget: _Budget
) -> None:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if _is_hidden(name):
        return
    if name.is_absolute() or ".." in name.parts:
        intake.skipped.append((str(name), "its path leads out of the folder"))
        return
    try:
        with archive.open(member) as source:
            _take_one(name, source, folder, intake, budget)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        intake.skipped.append((str(name), f"it cannot be unpacked ({error})"))


def _take_one(name: PurePosixPath, source: IO[bytes], folder: Path, intake: Intake, budget: _Budget) -> None:
    if not _is_wanted(name):
        intake.skipped.append((str(name), "it is neither a picture nor a caption"))
        return
    if budget.files == 0:
        raise UserError("dataset.too_many", f"More than {MAX_FILES} files.", "Add them in parts.", "files")
    target = folder.joinpath(*(_UNSAFE.sub("_", part) for part in name.parts))
    if target.exists():
        intake.skipped.append((str(name), "there is a file of this name already"))
        return
    with atomic_path(target) as temporary, temporary.open("wb") as out:
        written = _copy(source, out, budget)
    if written is None:
        target.unlink()
        intake.skipped.append((str(name), f"it is larger than {MAX_FILE_BYTES >> 20} MB"))
        return
    budget.files -= 1
    intake.added += 1


def _copy(source: IO[bytes], out: IO[bytes], budget: _Budget) -> int | None:
    """Copy and count what really comes, whatever a zip file's list says; None when it is too large for one file."""
    written = 0
    for chunk in _chunks(source):
        written += len(chunk)
        budget.size -= len(chunk)
        if written > MAX_FILE_BYTES:
            return None
        if budget.size < 0:
            raise UserError(
                "dataset.too_large", f"More than {MAX_TOTAL_BYTES >> 30} GB in all.", "Add them in parts.", "files"
            )
        out.write(chunk)
    return written


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in name.parts)


def _is_wanted(name: PurePosixPath) -> bool:
    return name.name in TABLES or name.suffix.lower() in {*PICTURE_ENDINGS, *CAPTION_ENDINGS}
