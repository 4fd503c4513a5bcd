"""The batches a run trains on. Batch ``i`` depends on the config, the pictures and ``i`` alone, in any process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from trainer.config import Config
from trainer.data.augment import (
    Augmentation,
    cached_augmentations,
    draw_augmentation,
    load_pixels,
    no_augmentation,
    pick_cached,
)
from trainer.data.cache import LatentCache, View, encode_pixels, text_row_bytes
from trainer.data.captions import Moment, for_validation, process_caption
from trainer.data.contents import Contents, contents_of
from trainer.data.epoch import (
    Entry,
    Layout,
    Showing,
    epoch_batches,
    lay_out,
    total_steps,
)
from trainer.data.facts import dataset_facts
from trainer.data.folders import SkippedPicture
from trainer.data.image_files import PICTURE_ERRORS, ChangedPicture, read_rgb, unchanged, why_unreadable
from trainer.data.masks import MaskSource
from trainer.data.rows import Rows, all_rows
from trainer.data.text_plan import TextPlan, text_plan
from trainer.errors import UserError
from trainer.families.base import Family
from trainer.ranks import ALONE, Ranks
from trainer.runs.events import EventSink

_NAMED_WARNINGS = 20
_READERS = 8
_CHECK_AT_ONCE = 32


@dataclass(frozen=True)
class Batch:
    """Pictures of one bucket.

    Attributes:
        latents: (B, 4, h, w) float32, scaled, on the CPU; the mean of the VAE's distribution.
        captions: B captions as they are trained on this time.
        loss_weights: (B,) float32; ``train.prior_loss_weight`` for regularization pictures, 1 for the others.
        sizes: (B, 6) int64, pixels: original height and width, what the crop left out at the top and on the left of the
            scaled picture, height and width of the bucket; SDXL reads them (Podell et al. 2023, 2307.01952, 2.2).
        paths: B picture files.
        masks: (B, 1, h, w) float32 from 0 to 1, how much each latent cell counts; None where all of it does.
        shared: which of a batch that several processes share these are; None where they are all.
    """

    latents: Tensor
    captions: list[str]
    loss_weights: Tensor
    sizes: Tensor
    paths: list[Path]
    masks: Tensor | None = None
    shared: Rows | None = None

    @property
    def rows(self) -> Rows:
        """The places of these pictures."""
        return self.shared or all_rows(len(self.captions))


class _LatentSource(Protocol):
    def latents(self, members: list[tuple[Entry, Augmentation]]) -> Tensor:
        """(B, 4, h, w) float32 on the CPU, of entries of one bucket."""


class TrainingSet:
    """What ``prepare_training_set`` made ready.

    Attributes:
        batches_per_epoch: batches in which every picture is seen its repeats' times.
        pictures: how many different pictures are trained on.
        facts: what is trained on, counted.
        skipped: pictures left out, and why.
        text_plan: what is known of the captions, and how they are encoded.
        contents: what its pictures and captions are.
    """

    def __init__(
        self,
        config: Config,
        training: list[Entry],
        validation: list[Entry],
        skipped: list[SkippedPicture],
        source: _LatentSource,
        masks: MaskSource | None,
        text_plan: TextPlan,
        contents: Contents,
        ranks: Ranks = ALONE,
    ) -> None:
        self._config = config
        self._training = training
        self._validation = validation
        self._source = source
        self._masks = masks
        self._ranks = ranks
        self._epoch: tuple[int, list[list[Showing]]] | None = None
        self.skipped = skipped
        self.text_plan = text_plan
        self.contents = contents
        self.pictures = len({entry.picture.path for entry in training})
        self.facts = dataset_facts(config, training, validation, ranks.size)
        self.batches_per_epoch = self.facts.batches_per_epoch
        self._max_steps = total_steps(config.train, self.batches_per_epoch)

    def batch(self, index: int) -> Batch | None:
        """This process's share of the ``index``-th batch since the start of the run, counted from 0; None where it has
        none. May be asked in any order.
        """
        epoch, position = divmod(index, self.batches_per_epoch)
        step = index // self._config.train.gradient_accumulation_steps
        moment = Moment(epoch, step, self._max_steps)
        together = self._batches_of(epoch)[position]
        rows = self._ranks.rows(len(together))
        showings = together[rows.part]
        if not showings:
            return None
        members = [(each.entry, self._augmentation(each)) for each in showings]
        return self._assemble(members, [self._caption(each, moment) for each in showings], rows)

    def validation_batches(self) -> list[Batch]:
        """The pictures held back, each once, unchanged, with captions that do not vary; empty without a split."""
        return self._steady_batches([(entry, no_augmentation(entry.placement)) for entry in self._validation])

    def steady_batches(self, most: int) -> list[Batch]:
        """The same of at most so many of the pictures that are trained on, evenly spread, without regularization.

        Where crops or colours are random and cached, each is in the first of its forms.
        """
        own = self._own_entries()
        chosen = own if len(own) <= most else [own[len(own) * number // most] for number in range(most)]
        return self._steady_batches([(entry, self._first_form(entry)) for entry in chosen])

    def pictures_as_trained(self) -> Iterator[tuple[Path, Tensor]]:
        """Each picture that is trained on, once, without regularization and augmentation.

        Pixels are (3, H, W) float32 in [-1, 1]. Raises UserError for one that can no longer be read.
        """
        different = {entry.picture.path: entry for entry in reversed(self._own_entries())}
        for path, entry in sorted(different.items()):
            yield path, _load_or_stop(entry, no_augmentation(entry.placement), {})

    def _own_entries(self) -> list[Entry]:
        return [entry for entry in self._training if not entry.picture.is_regularization]

    def _first_form(self, entry: Entry) -> Augmentation:
        cache, settings = self._config.dataset.cache, self._config.dataset.augment_of(entry.picture.source)
        if not cache.latents:
            return no_augmentation(entry.placement)
        return cached_augmentations(settings, entry.placement, entry.key, cache.variants)[0]

    def _steady_batches(self, members: list[tuple[Entry, Augmentation]]) -> list[Batch]:
        ordered = sorted(members, key=lambda member: (member[0].bucket, member[0].key))
        batches = []
        for start, end in _runs([entry for entry, _ in ordered], self._config.train.batch_size):
            some = ordered[start:end]
            batches.append(self._assemble(some, [self._steady_caption(Showing(entry, 0, 0)) for entry, _ in some]))
        return batches

    def _augmentation(self, showing: Showing) -> Augmentation:
        entry, cache = showing.entry, self._config.dataset.cache
        settings = self._config.dataset.augment_of(entry.picture.source)
        rng = showing.rng(self._config.train.seed, "augmentation")
        if cache.latents:
            return pick_cached(settings, entry.placement, entry.key, cache.variants, rng)
        return draw_augmentation(settings, entry.placement, rng)

    def _caption(self, showing: Showing, moment: Moment) -> str:
        picture = showing.entry.picture
        rng = showing.rng(self._config.train.seed, "caption")
        return process_caption(picture.caption, self._config.dataset.captions_of(picture.source), rng, moment)

    def _steady_caption(self, showing: Showing) -> str:
        picture = showing.entry.picture
        settings = for_validation(self._config.dataset.captions_of(picture.source))
        return process_caption(picture.caption, settings, showing.rng(self._config.train.seed, "caption"))

    def _batches_of(self, epoch: int) -> list[list[Showing]]:
        if self._epoch is None or self._epoch[0] != epoch:
            train = self._config.train
            self._epoch = epoch, epoch_batches(self._training, train.batch_size * self._ranks.size, train.seed, epoch)
        return self._epoch[1]

    def _assemble(
        self, members: list[tuple[Entry, Augmentation]], captions: list[str], shared: Rows | None = None
    ) -> Batch:
        entries = [entry for entry, _ in members]
        return Batch(
            latents=self._source.latents(members),
            captions=captions,
            loss_weights=torch.tensor([entry.loss_weight for entry in entries], dtype=torch.float32),
            sizes=torch.tensor([_sizes(entry, augmentation) for entry, augmentation in members]),
            paths=[entry.picture.path for entry in entries],
            masks=None if self._masks is None else self._masks.masks(members),
            shared=shared,
        )


def prepare_training_set(
    config: Config,
    family: Family,
    cache_dir: Path,
    events: EventSink,
    check_stop: Callable[[], None],
    ranks: Ranks = ALONE,
) -> TrainingSet:
    """Find the pictures, encode them where they are cached, and make the batches ready.

    Pictures that cannot be used are left out with a ``warning`` event that names them; the run goes on.

    Args:
        config: the run's settings.
        family: the loaded model; its VAE encodes.
        cache_dir: folder for caches; used where ``dataset.cache.to_disk`` is set.
        events: where progress and warnings go.
        check_stop: called between groups of pictures; raises to stop.
        ranks: the processes that share batches, and the work of encoding.

    Raises:
        UserError: folders missing or empty, or no picture left that can be used.
    """
    layout = lay_out(config)
    folder = cache_dir / "latents" if config.dataset.cache.to_disk else None
    known = list(_known_forms(layout, config))
    source: _LatentSource
    if config.dataset.cache.latents:
        cache = LatentCache(family, folder, events, ranks)
        failed = cache.fill((_view(entry, change) for entry, change in known), check_stop)
        source, digests = _CachedLatents(cache), cache.digests
    else:
        digests, failed = _check_pictures([entry.picture.path for entry, _ in known], events, check_stop)
        source = _LiveLatents(family, digests)
    kind = config.loss.masked
    masks = MaskSource(kind, family.latent_scale, folder, events) if kind else None
    if masks is not None:
        failed |= masks.fill([each for each in known if each[0].picture.path not in failed], check_stop)
    skipped = [*layout.collection.skipped, *(SkippedPicture(path, why) for path, why in sorted(failed.items()))]
    _warn(layout, skipped, events)
    training = [entry for entry in layout.training if entry.picture.path not in failed]
    if all(entry.picture.is_regularization for entry in training):
        named = ", ".join(f"{each.path.name} ({each.reason})" for each in skipped[:3])
        message = f"dataset.sources: no picture can be used: {named}."
        raise UserError("dataset.no_pictures", message, "Replace the pictures.", "dataset.sources")
    validation = [entry for entry in layout.validation if entry.picture.path not in failed]
    texts = text_plan(config, training, validation, text_row_bytes(family, config.dataset.captions))
    contents = contents_of([*training, *validation], digests)
    return TrainingSet(config, training, validation, skipped, source, masks, texts, contents, ranks)


class _CachedLatents:
    def __init__(self, cache: LatentCache) -> None:
        self._cache = cache

    def latents(self, members: list[tuple[Entry, Augmentation]]) -> Tensor:
        return torch.stack([self._cache.latents(_view(entry, change)) for entry, change in members])


class _LiveLatents:
    """Encodes anew each time, for augmentations that change the pixels. The files must stay what they were."""

    def __init__(self, family: Family, digests: dict[Path, str]) -> None:
        self._family = family
        self._digests = digests

    def latents(self, members: list[tuple[Entry, Augmentation]]) -> Tensor:
        pixels = [_load_or_stop(entry, augmentation, self._digests) for entry, augmentation in members]
        return encode_pixels(self._family, torch.stack(pixels))


def _sizes(entry: Entry, augmentation: Augmentation) -> list[int]:
    """A row of ``Batch.sizes``. Of a mirrored picture, what was cut off on the right lies on the left."""
    picture, place, left = entry.picture, entry.placement, augmentation.crop_left
    if augmentation.flip:
        left = place.scaled_width - place.width - left
    return [picture.height, picture.width, augmentation.crop_top, left, place.height, place.width]


def _load_or_stop(entry: Entry, augmentation: Augmentation, digests: dict[Path, str]) -> Tensor:
    """The pixels of a picture, which must be what its digest is of where that is known."""
    path = entry.picture.path
    try:
        data = path.read_bytes()
        if path in digests:
            unchanged(data, digests[path])
        return load_pixels(data, entry.placement, augmentation)
    except ChangedPicture as error:
        raise UserError(
            "dataset.picture_changed",
            f"dataset.sources: {path} was changed while it was trained on.",
            "Put the picture back that it was, and resume the run; without that it goes on with the new one.",
            "dataset.sources",
        ) from error
    except PICTURE_ERRORS as error:
        raise UserError(
            "dataset.picture_lost",
            f"dataset.sources: {path} was usable when the run began, now {why_unreadable(error)}.",
            "Put it back and resume the run.",
            "dataset.sources",
        ) from error


def _known_forms(layout: Layout, config: Config) -> Iterable[tuple[Entry, Augmentation]]:
    """The pictures as they come, where latents are cached; else each as it is, to look at it once."""
    cache = config.dataset.cache
    for entry in layout.training:
        settings = config.dataset.augment_of(entry.picture.source)
        if not cache.latents:
            yield entry, no_augmentation(entry.placement)
        else:
            for change in cached_augmentations(settings, entry.placement, entry.key, cache.variants):
                yield entry, change
    for entry in layout.validation:
        yield entry, no_augmentation(entry.placement)


def _view(entry: Entry, augmentation: Augmentation) -> View:
    return View(entry.picture.path, entry.placement, augmentation)


def _check_pictures(
    paths: list[Path], events: EventSink, check_stop: Callable[[], None]
) -> tuple[dict[Path, str], dict[Path, str]]:
    """Decode each picture once, so that a damaged one is known before the first step.

    Returns the SHA-256 of those that can be used, and why the others cannot.
    """
    unique = list(dict.fromkeys(paths))
    digests, failed = dict[Path, str](), dict[Path, str]()
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(unique), _CHECK_AT_ONCE):
            check_stop()
            some = unique[start : start + _CHECK_AT_ONCE]
            for path, found in zip(some, pool.map(_digest_if_usable, some), strict=True):
                if isinstance(found, str):
                    digests[path] = found
                else:
                    failed[path] = why_unreadable(found)
            events.emit("progress", what="checking pictures", done=start + len(some), total=len(unique))
    return digests, failed


def _digest_if_usable(path: Path) -> str | BaseException:
    try:
        data = path.read_bytes()
        read_rgb(data)
    except PICTURE_ERRORS as error:
        return error
    return hashlib.sha256(data).hexdigest()


def _runs(entries: list[Entry], batch_size: int) -> Iterable[tuple[int, int]]:
    """Start and end of batches over entries sorted by bucket."""
    start = 0
    for end in range(1, len(entries) + 1):
        full = end - start == batch_size
        if full or end == len(entries) or entries[end].bucket != entries[start].bucket:
            yield start, end
            start = end


def _warn(layout: Layout, skipped: list[SkippedPicture], events: EventSink) -> None:
    for problem in layout.collection.warnings:
        events.emit("warning", code=problem.code, message=problem.message, hint=problem.hint)
    for each in skipped[:_NAMED_WARNINGS]:
        message = f"{each.path} is left out: {each.reason}."
        events.emit("warning", code="dataset.skipped_picture", message=message, hint="Replace or remove it.")
    if len(skipped) > _NAMED_WARNINGS:
        message = f"{len(skipped) - _NAMED_WARNINGS} more pictures are left out."
        events.emit("warning", code="dataset.skipped_picture", message=message, hint="`trainer dataset` lists them.")
