"""Which pictures an epoch shows, how often, in which batches and in which order. Never torch.

The plan and the training both ask this module, so that what was announced is what is trained.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from trainer.config import Config, Source, TrainSettings
from trainer.data.buckets import Placement, Resolution, place, resolutions
from trainer.data.folders import Collection, Picture, collect
from trainer.errors import Problem, UserError


@dataclass(frozen=True)
class Entry:
    """A picture at one resolution.

    Attributes:
        picture: the picture.
        placement: its bucket, scaling and crop.
        resolution: the one the placement is for.
        repeats: times it is seen in an epoch.
        loss_weight: ``train.prior_loss_weight`` for regularization pictures, 1 for the others.
    """

    picture: Picture
    placement: Placement
    resolution: Resolution
    repeats: int
    loss_weight: float

    @property
    def bucket(self) -> Resolution:
        return self.placement.width, self.placement.height

    @property
    def key(self) -> str:
        return f"{self.picture.key}@{self.resolution[0]}x{self.resolution[1]}"


@dataclass(frozen=True)
class Showing:
    """One of the times an entry is seen in an epoch; ``number`` counts them from 0."""

    entry: Entry
    epoch: int
    number: int

    def rng(self, seed: int, purpose: str) -> random.Random:
        """The chance of this showing: depends on seed, epoch and picture only, not on what was shown before."""
        return random.Random(f"{seed}/{self.epoch}/{self.entry.key}/{self.number}/{purpose}")


@dataclass(frozen=True)
class Layout:
    """What is trained on and what is held back.

    Attributes:
        training: entries of an epoch, regularization included.
        validation: entries held back.
        unused: regularization pictures for which there is no training picture to go with.
        collection: everything found.
    """

    training: list[Entry]
    validation: list[Entry]
    unused: list[Picture]
    collection: Collection


def lay_out(config: Config) -> Layout:
    """Collect the dataset and decide what is trained on. Raises UserError, see ``folders.collect``."""
    collection, apart = _collect_both(config)
    own = [picture for picture in collection.pictures if not picture.is_regularization]
    prior = [picture for picture in collection.pictures if picture.is_regularization]
    if not own:
        raise UserError(
            "dataset.only_regularization",
            "dataset.sources: all folders are regularization folders.",
            "Add a folder with the pictures to learn from.",
            "dataset.sources",
        )
    held_back = validation_keys([picture.key for picture in own], config.validation.split, config.train.seed)
    trained = [picture for picture in own if picture.key not in held_back]
    prior_repeats = regularization_repeats(
        sum(picture.repeats for picture in trained), [picture.repeats for picture in prior]
    )
    training = [entry for picture in trained for entry in _entries(config, picture, picture.repeats, 1.0)]
    for picture, repeats in zip(prior, prior_repeats, strict=True):
        if repeats:
            training.extend(_entries(config, picture, repeats, config.train.prior_loss_weight))
    return Layout(
        training=training,
        validation=[
            entry
            for picture in [*(picture for picture in own if picture.key in held_back), *apart]
            for entry in _entries(config, picture, 1, 1.0)
        ],
        unused=[picture for picture, repeats in zip(prior, prior_repeats, strict=True) if not repeats],
        collection=collection,
    )


def validation_keys(keys: list[str], share: float, seed: int) -> set[str]:
    """The pictures held back: those with the lowest hashes, at least one and never all; none for a share of 0.

    A picture's hash does not depend on the others, so adding pictures moves few between the two sides.
    """
    if share == 0 or len(keys) < 2:
        return set()
    count = min(len(keys) - 1, max(1, round(share * len(keys))))
    return set(sorted(keys, key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).digest())[:count])


def regularization_repeats(training_views: int, repeats: list[int]) -> list[int]:
    """How often each regularization picture is seen in an epoch, as sd-scripts does it.

    They are taken in order with their own repeats until as many as training views are reached; when they run out,
    each gets one more, round after round. Pictures beyond that get 0.
    """
    shown = [0] * len(repeats)
    total, first_round = 0, True
    while repeats and total < training_views:
        for number, own in enumerate(repeats):
            if total >= training_views:
                break
            more = own if first_round else 1
            shown[number] += more
            total += more
        first_round = False
    return shown


def batches_per_epoch(entries: Iterable[Entry], batch_size: int) -> int:
    """Batches of one epoch; a batch never mixes buckets, and a bucket's short last batch counts."""
    return sum(math.ceil(views / batch_size) for views in views_per_bucket(entries).values())


def views_per_bucket(entries: Iterable[Entry]) -> dict[Resolution, int]:
    """How many times a picture is seen in each bucket in an epoch, by sorted bucket size."""
    views: dict[Resolution, int] = {}
    for entry in entries:
        views[entry.bucket] = views.get(entry.bucket, 0) + entry.repeats
    return dict(sorted(views.items()))


def epoch_batches(entries: list[Entry], batch_size: int, seed: int, epoch: int) -> list[list[Showing]]:
    """All batches of one epoch in order: shuffled within each bucket, then the batches among each other."""
    rng = random.Random(f"{seed}/{epoch}/order")
    buckets: dict[Resolution, list[Showing]] = {bucket: [] for bucket in views_per_bucket(entries)}
    for entry in entries:
        buckets[entry.bucket].extend(Showing(entry, epoch, number) for number in range(entry.repeats))
    batches: list[list[Showing]] = []
    for showings in buckets.values():
        rng.shuffle(showings)
        batches.extend(showings[start : start + batch_size] for start in range(0, len(showings), batch_size))
    rng.shuffle(batches)
    return batches


def total_steps(train: TrainSettings, batches: int) -> int:
    """Optimizer steps of a whole run: ``max_steps``, or what ``epochs`` comes to, which wins.

    Gradient accumulation runs on across the end of an epoch, so only the last step may be short of batches.

    Args:
        train: the training settings.
        batches: per epoch.
    """
    if train.epochs is None:
        return train.max_steps
    return math.ceil(train.epochs * batches / train.gradient_accumulation_steps)


def _collect_both(config: Config) -> tuple[Collection, list[Picture]]:
    """The dataset's pictures, and those of a folder that is only validated on. Raises UserError with all problems."""
    problems: list[Problem] = []
    found: list[Collection] = []
    validation = config.validation.path
    apart = config.dataset.model_copy(update={"sources": [Source(path=validation)] if validation else []})
    for settings, wanted in ((config.dataset, True), (apart, validation is not None)):
        try:
            found.append(collect(settings) if wanted else Collection())
        except UserError as error:
            problems += error.problems if settings is config.dataset else map(_about_validation, error.problems)
    if problems:
        raise UserError.many(problems)
    collection, extra = found
    _check_apart(collection.pictures, extra.pictures)
    skipped = [*collection.skipped, *extra.skipped]
    pictures = [replace(picture, source=None, key=f"validation/{picture.key}") for picture in extra.pictures]
    return replace(collection, skipped=skipped, warnings=[*collection.warnings, *extra.warnings]), pictures


def _check_apart(trained: list[Picture], validated: list[Picture]) -> None:
    """Raises UserError for pictures that are trained on and validated on."""
    files = {picture.path.resolve() for picture in trained}
    both = [picture.path.name for picture in validated if picture.path.resolve() in files]
    if both:
        raise UserError(
            "validation.not_apart",
            f"validation.path: {len(both)} of its pictures are trained on too, such as {both[0]}.",
            "Choose a folder outside of those in dataset.sources.",
            "validation.path",
        )


def _about_validation(problem: Problem) -> Problem:
    """What was found wrong with the one source that the validation folder was taken for."""
    name = "validation.path"
    return replace(problem, message=problem.message.replace("dataset.sources.0.path", name), field=name)


def _entries(config: Config, picture: Picture, repeats: int, loss_weight: float) -> Iterable[Entry]:
    for resolution in resolutions(config.dataset):
        placement = place(picture.width, picture.height, config.dataset, resolution)
        yield Entry(picture, placement, resolution, repeats, loss_weight)
