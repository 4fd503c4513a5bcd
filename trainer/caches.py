"""What was downloaded or computed and can be got again: what it takes of the disk, and letting it go. Never torch."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from trainer.errors import Problem, UserError
from trainer.files import size_bytes
from trainer.runs.store import ALIVE, Workspace
from trainer.single_file.cache import cache_dir as converted_dir

COMPUTED, CONVERTED, UNPACKED = "computed", "converted", "unpacked"
"""Names of our own caches; others are those of repositories of the hub, which have a slash."""


@dataclass(frozen=True)
class Cache:
    """Something that can be deleted, and is made or downloaded anew when it is needed.

    Attributes:
        name: tells it: ``owner/name`` for a model, ``datasets/owner/name`` for a data set, else one of our own.
        about: what it is.
        path: its folder.
        size_bytes: on the disk.
        last_used: Unix seconds; None where that is not known.
    """

    name: str
    about: str
    path: Path
    size_bytes: int
    last_used: float | None = None


def caches(workspace: Workspace) -> list[Cache]:
    """All there are, our own first, then repositories of the hub, largest first."""
    return [*_own(workspace), *_of_hub()]


def delete_caches(workspace: Workspace, names: list[str]) -> int:
    """Delete caches by their names; returns the bytes freed.

    Raises UserError, and deletes nothing, for a name that there is not, and while a run is going.
    """
    there = {cache.name: cache for cache in caches(workspace)}
    if unknown := [name for name in names if name not in there]:
        listing = f"There are: {', '.join(there)}."
        raise UserError.many([Problem("cache.unknown", f"There is no cache {name!r}.", listing) for name in unknown])
    going = [run.id for run in workspace.runs() if run.status().state in ALIVE]
    if going:
        message = f"The caches are in use by {', '.join(going)}."
        raise UserError("cache.in_use", message, "Clear them when no run is going.")
    chosen = [there[name] for name in dict.fromkeys(names)]
    for cache in chosen:
        shutil.rmtree(cache.path, ignore_errors=True)
    return sum(cache.size_bytes - size_bytes(cache.path) for cache in chosen)


def _own(workspace: Workspace) -> list[Cache]:
    places = {
        COMPUTED: ("latents, captions and thumbnails of your pictures", workspace.cache_dir),
        CONVERTED: ("folders made of single-file models", converted_dir()),
        UNPACKED: ("pictures of data sets of the hub", _unpacked_dir()),
    }
    return [Cache(name, about, path, size_bytes(path)) for name, (about, path) in places.items()]


def _of_hub() -> list[Cache]:
    try:
        found = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    rows = [
        Cache(
            name=repo.repo_id if repo.repo_type == "model" else f"{repo.repo_type}s/{repo.repo_id}",
            about=f"{repo.repo_type} of the hub, {repo.nb_files} files",
            path=repo.repo_path,
            size_bytes=repo.size_on_disk,
            last_used=repo.last_accessed,
        )
        for repo in found
    ]
    return sorted(rows, key=lambda row: (-row.size_bytes, row.name))


def _unpacked_dir() -> Path:
    """Where ``data.datasets_library`` unpacks; the library that it asks there takes a second to load."""
    given = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets"
    return Path(given).expanduser() / "lora-atelier"
