"""What a run writes against what is free on the workspace's disk. Never torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.data.epoch import Layout
from trainer.data.text_plan import TextPlan
from trainer.estimates import disk_bytes
from trainer.model_sizes import ModelSizes
from trainer.plan_fixes import Advice, Fix, changed
from trainer.single_file.cache import cache_dir, converted_folder
from trainer.single_file.kinds import folder_bytes

_GIB = 2**30
LEFT_BYTES = _GIB // 2  # a disk that is quite full breaks more than a run


def free_disk_bytes(folder: Path) -> int:
    """What is free where a folder is, or will be made."""
    return shutil.disk_usage(_there(folder)).free


def conversion_bytes(base: Path) -> int:
    """What the folder will take that a single file is made into, in ``single_file.cache.cache_dir``; 0 for others."""
    return folder_bytes(base) if base.is_file() and converted_folder(base) is None else 0


def free_for_run(workspace_dir: Path, base: Path) -> int:
    """What is free in the workspace when the run has its model: a single file's folder may come to the same disk."""
    free, converted = free_disk_bytes(workspace_dir), conversion_bytes(base)
    return free - converted if converted and same_disk(workspace_dir, cache_dir()) else free


def same_disk(folder: Path, other: Path) -> bool:
    """Whether two folders, which need not be there yet, are on one file system."""
    return _there(folder).stat().st_dev == _there(other).stat().st_dev


def disk_advice(config: Config, sizes: ModelSizes, layout: Layout, texts: TextPlan, free_bytes: int) -> list[Advice]:
    """A warning where the run writes more than there is room for, with what would do."""

    def needed(changes: dict[str, Any]) -> int:
        return disk_bytes(changed(config, changes), sizes, layout, texts)

    def fits(count: int) -> bool:
        return count + LEFT_BYTES <= free_bytes

    whole = disk_bytes(config, sizes, layout, texts)
    if fits(whole):
        return []
    message = (
        f"The run writes about {whole / _GIB:.1f} GiB, and {free_bytes / _GIB:.1f} GiB are free in the workspace, "
        "of which half a GiB should stay so."
    )
    fixes = [each for each in _fixes(config) if fits(needed(each.changes))]
    return [Advice("disk.too_little", message, "Free some space.", "output.keep_last", fixes)]


def _fixes(config: Config) -> Iterator[Fix]:
    if config.output.keep_last > 1:
        yield Fix("Keep one checkpoint", {"output.keep_last": 1}, "older ones cannot be gone back to")
    if config.dataset.cache.to_disk:
        changes = {"dataset.cache.to_disk": False}
        yield Fix("Keep caches in memory only", changes, "the next run with these pictures encodes them again")


def _there(folder: Path) -> Path:
    """The folder, or the innermost one around it that exists."""
    while not folder.is_dir():
        folder = folder.parent
    return folder
