"""A model's weights brought into the system's memory while something else takes time. Never torch.

What is loaded later finds its pages there: libraries are imported while the disk works.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from trainer.config import ModelSettings
from trainer.errors import UserError
from trainer.files import home_path
from trainer.model_sizes import local_folder
from trainer.weight_files import vae_folder, weights_in

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""As they are needed: the others behind the one that every run loads."""
_BLOCK = 1 << 22
_MOST_OF_MEMORY = 0.5
"""Of what is free: more would push out what was just read."""


def read_ahead(model: ModelSettings) -> threading.Thread:
    """Have the weights of the settings' model read, beside this thread. Nothing waits for it, and nothing fails by it.

    A model that is not on this machine yet, or does not fit into the memory that is free, is left alone.
    """
    thread = threading.Thread(target=_read, args=(model,), name="read-ahead", daemon=True)
    thread.start()
    return thread


def weights_of(model: ModelSettings) -> list[Path]:
    """The files of the settings' model as a run may read them, in that order; none for what is still to be downloaded.

    Raises UserError when there can be no such model, and OSError.
    """
    folder = local_folder(model)
    if folder is None:
        return []
    other = home_path(model.vae) if model.vae else None
    folders = {part: folder / part for part in _PARTS}
    folders["vae"] = vae_folder(folder, other if other is not None and other.is_dir() else None)
    return [path for part in folders.values() if part.is_dir() for path in _weights_in(part)]


def _weights_in(folder: Path) -> Iterator[Path]:
    weights = weights_in(folder)
    for name in weights.names if weights else ():
        yield folder / name


def _read(model: ModelSettings) -> None:
    try:
        files = weights_of(model)
        if sum(path.stat().st_size for path in files) > _MOST_OF_MEMORY * psutil.virtual_memory().available:
            return
        for path in files:
            _bring(path)
    except (OSError, UserError):  # loading will tell
        return


def _bring(path: Path) -> None:
    """Have the system keep a file's pages: by asking for them where it can be asked, else by reading."""
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            for start in range(0, path.stat().st_size, _BLOCK):
                os.posix_fadvise(file.fileno(), start, _BLOCK, os.POSIX_FADV_WILLNEED)
            return
        block = bytearray(_BLOCK)
        while file.readinto(block):
            pass
