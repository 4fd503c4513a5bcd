"""How many steps an epoch takes, counted from file names alone: quick enough to follow every key press."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trainer.config import Config
from trainer.data.folders import picture_files, repeats_folder

_FRESH_SECONDS = 5.0


@dataclass(frozen=True)
class StepMaths:
    """Counts for one config. ``seen`` is pictures with repeats, at every resolution, in one epoch."""

    pictures: int
    seen: int
    per_step: int
    steps_per_epoch: int
    max_steps: int
    epochs: float

    def sentence(self) -> str:
        """``24 pictures, 240 with repeats, / 4 a step = 60 steps an epoch``."""
        repeats = f", {self.seen} with repeats" if self.seen != self.pictures else ""
        steps = f"{self.steps_per_epoch} step{'s' if self.steps_per_epoch > 1 else ''} an epoch"
        return f"{self.pictures} pictures{repeats} / {self.per_step} a step = about {steps}"


def step_maths(config: Config, processes: int = 1) -> StepMaths | None:
    """The counts, for processes that share each batch; None while no folder holds a picture.

    Buckets may add some steps: a batch never mixes them.
    """
    counts = [count_pictures(source.path) for source in config.dataset.sources]
    pictures = sum(count for count, _ in counts)
    repeated = sum(
        weighted * source.repeats for (_, weighted), source in zip(counts, config.dataset.sources, strict=True)
    )
    if not repeated:
        return None
    resolution = config.dataset.resolution
    seen = repeated * (len(resolution) if isinstance(resolution, list) else 1)
    per_step = config.train.batch_size * processes * config.train.gradient_accumulation_steps
    per_epoch = math.ceil(seen / per_step)
    max_steps = config.train.epochs * per_epoch if config.train.epochs else config.train.max_steps
    return StepMaths(pictures, seen, per_step, per_epoch, max_steps, max_steps / per_epoch)


def count_pictures(folder: str) -> tuple[int, int]:
    """Pictures under a folder, and their number with the repeats of ``10_name`` folders; counted anew after 5 s."""
    return _count(folder, int(time.monotonic() / _FRESH_SECONDS))


@lru_cache(maxsize=64)
def _count(folder: str, moment: int) -> tuple[int, int]:
    root = Path(folder).expanduser()
    files = picture_files(root) if root.is_dir() else []
    return len(files), sum(_repeats(path.relative_to(root)) for path in files)


def _repeats(inside: Path) -> int:
    named = (repeats_folder(part) for part in reversed(inside.parts[:-1]))
    return next((found[0] for found in named if found is not None), 1)
