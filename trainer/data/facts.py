"""What a data set comes to, counted for the metadata of a LoRA file. Never torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainer.config import Config
from trainer.data.buckets import Resolution, resolutions
from trainer.data.epoch import Entry, batches_per_epoch, views_per_bucket
from trainer.data.folders import repeats_folder


@dataclass(frozen=True)
class Subset:
    """The pictures of one folder, as sd-scripts counts it: a source, or an ``N_name`` folder in one.

    Attributes:
        source: its number in ``dataset.sources``.
        name: the folder's own name, without what lies around it.
        class_prompt: caption of pictures without one; None where there is none.
        is_regularization: whether it shows what the model should keep doing.
        repeats: as the settings and the folder's name say; regularization may be shown more often or less.
        pictures: how many it has.
        tags: how often each comma-separated part of the captions occurs, in small letters.
    """

    source: int
    name: str
    class_prompt: str | None
    is_regularization: bool
    repeats: int
    pictures: int
    tags: dict[str, int]


@dataclass(frozen=True)
class Views:
    """What an epoch shows at one resolution. Repeats are counted.

    Attributes:
        resolution: the one asked for, pixels.
        training: views of pictures to learn from.
        regularization: views of the others.
        buckets: views by bucket size.
        aspect_error: mean over the pictures of the difference between their aspect ratio and their bucket's.
    """

    resolution: Resolution
    training: int
    regularization: int
    buckets: dict[Resolution, int]
    aspect_error: float


@dataclass(frozen=True)
class DatasetFacts:
    """A run's data set in numbers.

    Attributes:
        views: by resolution.
        subsets: by folder, in the order of the sources.
        validation: pictures held back.
        batches_per_epoch: batches of an epoch, each shared out between the processes.
        processes: how many train together.
    """

    views: list[Views]
    subsets: list[Subset]
    validation: int
    batches_per_epoch: int
    processes: int = 1

    @property
    def training_views(self) -> int:
        """Views of pictures to learn from in an epoch, over all resolutions."""
        return sum(each.training for each in self.views)

    @property
    def regularization_views(self) -> int:
        """Likewise of regularization pictures."""
        return sum(each.regularization for each in self.views)


def dataset_facts(config: Config, training: list[Entry], validation: list[Entry], processes: int = 1) -> DatasetFacts:
    """Count what is trained on by so many processes: the entries that are left when unusable pictures are out."""
    return DatasetFacts(
        views=[_views(size, training) for size in resolutions(config.dataset)],
        subsets=_subsets(config, training),
        validation=len({entry.picture.key for entry in validation}),
        batches_per_epoch=batches_per_epoch(training, config.train.batch_size * processes),
        processes=processes,
    )


def _views(resolution: Resolution, training: list[Entry]) -> Views:
    entries = [entry for entry in training if entry.resolution == resolution]
    errors = [abs(entry.picture.width / entry.picture.height - entry.bucket[0] / entry.bucket[1]) for entry in entries]
    return Views(
        resolution=resolution,
        training=sum(entry.repeats for entry in entries if not entry.picture.is_regularization),
        regularization=sum(entry.repeats for entry in entries if entry.picture.is_regularization),
        buckets=views_per_bucket(entries),
        aspect_error=math.fsum(errors) / len(errors),
    )


def _subsets(config: Config, training: list[Entry]) -> list[Subset]:
    pictures = {entry.picture.key: entry.picture for entry in training}.values()
    by_folder: dict[tuple[int, str, str | None, bool, int], list[str]] = {}
    for picture in pictures:
        if picture.source is None:
            continue
        source = config.dataset.sources[picture.source]
        inside = PurePosixPath(picture.key.partition("/")[2]).parts[:-1]
        marked = next((name for name in reversed(inside) if repeats_folder(name)), None)
        own = repeats_folder(marked) if marked else None
        prompt = source.class_prompt if source.class_prompt is not None or own is None else own[1]
        name = marked or Path(source.path).name
        folder = (picture.source, name, prompt, picture.is_regularization, picture.repeats)
        by_folder.setdefault(folder, []).append(picture.caption)
    return [Subset(*folder, len(captions), _tags(captions)) for folder, captions in by_folder.items()]


def _tags(captions: Iterable[str]) -> dict[str, int]:
    counts = Counter(tag.strip().lower() for caption in captions for tag in caption.split(",") if tag.strip())
    return dict(sorted(counts.items()))
