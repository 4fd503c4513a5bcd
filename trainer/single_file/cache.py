"""Where model folders made of single files are kept. Never torch."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trainer.files import write_text

SUFFIXES = (".safetensors", ".ckpt")
"""Endings of single-file models."""

_CONVERTER = 2  # raise it when what is written changes: older folders are then removed
_HEAD_BYTES = 1 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 4096
_BLOCK_BYTES = 1 << 24
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MADE_HERE = re.compile(r"(v\d+-)?[0-9a-f]{32}(-vae-[\w.+-]+)?")


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/lora-atelier/models``, by default under ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(root) if Path(root).is_absolute() else Path.home() / ".cache"
    return base / "lora-atelier" / "models"


def looks_like_a_file(model: str) -> bool:
    """Whether a model's name is that of a single file, rather than of a folder or a hub model."""
    return model.lower().endswith(SUFFIXES)


def folder_of(path: Path, *about: str, told: Callable[[int, int], None] | None = None) -> Path:
    """The folder for a file's model, whether or not it is there yet. Raises OSError when the file cannot be read.

    It is named by the file's contents, so that a file that was copied, moved, renamed or only touched has one folder.

    Args:
        path: the file.
        about: what else the folder depends on.
        told: called with the bytes hashed so far and all of them, where the file has to be read as a whole.
    """
    return _folder_named(content_hash(path, told), about)


def content_hash(path: Path, told: Callable[[int, int], None] | None = None) -> str:
    """The SHA-256 of a file. It is noted, as reading 7 GB takes longer than everything else before a run.

    ``told`` is called with the bytes hashed so far and all of them, where the file has to be read as a whole; it may
    raise to stop. Raises OSError.
    """
    note = _note(path)
    with suppress(OSError, ValueError):
        noted = note.read_text(encoding="utf-8")
        if _SHA256.fullmatch(noted):
            return noted
    content = _hash(path, told)
    write_text(note, content)
    return content


def converted_folder(path: Path) -> Path | None:
    """The folder that was made of this file; None where it is still to be made, or the file was not looked at yet."""
    try:
        content = _note(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    folder = _folder_named(content, ())
    return folder if (folder / "model_index.json").is_file() else None


def outdated_folders() -> list[Path]:
    """Folders that an older version of this program made in another way, and nothing uses any more."""
    if not cache_dir().is_dir():
        return []
    found = [path for path in cache_dir().iterdir() if path.is_dir() and _MADE_HERE.fullmatch(path.name)]
    return [path for path in found if not path.name.startswith(f"v{_CONVERTER}-")]


def _folder_named(content: str, about: tuple[str, ...]) -> Path:
    return cache_dir() / "-".join([f"v{_CONVERTER}", content[:32], *about])


def _note(path: Path) -> Path:
    """Where the hash of the file is noted: named by its size and time, its first MiB (where a safetensors header lies)
    and samples of the rest, which together do not stay the same when the file changes."""
    status = path.stat()
    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(_HEAD_BYTES))
        for number in range(_SAMPLES):
            file.seek(status.st_size * number // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
    return cache_dir() / "hashes" / digest.hexdigest()[:32]


def _hash(path: Path, told: Callable[[int, int], None] | None) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            if told is not None:
                told(done, total)
    return digest.hexdigest()
