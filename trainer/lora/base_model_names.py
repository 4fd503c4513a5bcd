"""What a LoRA file says about the model it was made on: names, and the hashes by which tools and sites find a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from trainer.config import ModelSettings
from trainer.single_file.cache import content_hash

_WINDOW = range(0x100000, 0x110000)
"""The 64 KiB that the oldest tools hash."""


def base_model_metadata(model: ModelSettings, check_stop: Callable[[], None]) -> dict[str, str]:
    """``ss_sd_model_name``, ``ss_vae_name`` and, for single files, their hashes as sd-scripts computes them.

    Of a path only its last name is told. Folders have no hash that anyone could look up.

    Args:
        model: the settings; the files must be there.
        check_stop: called between blocks; raises to stop.
    """
    told: dict[str, str] = {}
    for prefix, name in (("sd_model", model.base), ("vae", model.vae)):
        if name is None:
            continue
        path = Path(name).expanduser()
        told[f"ss_{prefix}_name"] = path.name if path.exists() else name
        if path.is_file():
            short, whole = file_hashes(path, check_stop)
            told |= {f"ss_{prefix}_hash": short, f"ss_new_{prefix}_hash": whole}
    return told


def file_hashes(path: Path, check_stop: Callable[[], None]) -> tuple[str, str]:
    """The first 8 digits of the SHA-256 of 64 KiB at 1 MiB (A1111's old model hash), and the SHA-256 of the file.

    The latter is remembered, see ``single_file.cache.content_hash``. Raises OSError.
    """
    with path.open("rb") as file:
        file.seek(_WINDOW.start)
        short = hashlib.sha256(file.read(len(_WINDOW))).hexdigest()[:8]
    return short, content_hash(path, lambda done, total: check_stop())
