"""Where model folders made of single files are kept. Never torch."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

SUFFIXES = (".safetensors", ".ckpt")
"""Endings of single-file models."""

_CONVERTER = 1  # raise it when what is written changes: older folders are then not used any more
_HEAD_BYTES = 1 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 4096


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/lora-atelier/models``, by default under ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(root) if Path(root).is_absolute() else Path.home() / ".cache"
    return base / "lora-atelier" / "models"


def looks_like_a_file(model: str) -> bool:
    """Whether a model's name is that of a single file, rather than of a folder or a hub model."""
    return model.lower().endswith(SUFFIXES)


def folder_of(path: Path, *about: str) -> Path:
    """The folder for a file's model, whether or not it is there yet. Raises OSError when the file cannot be read.

    It is named by a digest of the file's size and time, its first MiB (a safetensors header lies there) and samples of
    the rest: reading 7 GB would take longer than everything else. ``about`` is what else the folder depends on.
    """
    status = path.stat()
    digest = hashlib.sha256(f"{_CONVERTER} {status.st_size} {status.st_mtime_ns} {about}".encode())
    with path.open("rb") as file:
        digest.update(file.read(_HEAD_BYTES))
        for number in range(_SAMPLES):
            file.seek(status.st_size * number // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
    return cache_dir() / digest.hexdigest()[:32]


def converted_folder(path: Path) -> Path | None:
    """The folder that was made of this file; None where it is still to be made."""
    try:
        folder = folder_of(path)
    except OSError:
        return None
    return folder if (folder / "model_index.json").is_file() else None
