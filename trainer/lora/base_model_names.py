"""What a LoRA file says about the model it was made on: names, and the hashes by which tools and sites find a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from trainer.config import ModelSettings
from trainer.files import read_json, write_json

_BLOCK = 1 << 22
_WINDOW = range(0x100000, 0x110000)
"""The 64 KiB that the oldest tools hash."""


def base_model_metadata(model: ModelSettings, cache_dir: Path, check_stop: Callable[[], None]) -> dict[str, str]:
    """``ss_sd_model_name``, ``ss_vae_name`` and, for single files, their hashes as sd-scripts computes them.

    Of a path only its last name is told. Folders have no hash that anyone could look up.

    Args:
        model: the settings; the files must be there.
        cache_dir: where hashes are remembered: 7 GB take a while.
        check_stop: called between blocks; raises to stop.
    """
    told: dict[str, str] = {}
    for prefix, name in (("sd_model", model.base), ("vae", model.vae)):
        if name is None:
            continue
        path = Path(name).expanduser()
        told[f"ss_{prefix}_name"] = path.name if path.exists() else name
        if path.is_file():
            short, whole = file_hashes(path, cache_dir, check_stop)
            told |= {f"ss_{prefix}_hash": short, f"ss_new_{prefix}_hash": whole}
    return told


def file_hashes(path: Path, cache_dir: Path, check_stop: Callable[[], None]) -> tuple[str, str]:
    """The first 8 digits of the SHA-256 of 64 KiB at 1 MiB (A1111's old model hash), and the SHA-256 of the file.

    A file that was read before, and has its size and time still, is not read again. Raises OSError.
    """
    status = path.stat()
    about = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    note = cache_dir / "hashes" / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.json"
    try:
        known = read_json(note)
        return str(known["short"]), str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        short, whole = _hash(path, check_stop)
    write_json(note, {"short": short, "sha256": whole})
    return short, whole


def _hash(path: Path, check_stop: Callable[[], None]) -> tuple[str, str]:
    whole, window = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as file:
        file.seek(_WINDOW.start)
        window.update(file.read(len(_WINDOW)))
        file.seek(0)
        while block := file.read(_BLOCK):
            check_stop()
            whole.update(block)
    return window.hexdigest()[:8], whole.hexdigest()
