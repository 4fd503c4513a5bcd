"""Latents and text embeddings computed once, found again by the content they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainer.config import CaptionSettings
from trainer.data.augment import Augmentation, load_pixels
from trainer.data.buckets import Placement
from trainer.data.image_files import PICTURE_ERRORS, unchanged, why_unreadable
from trainer.data.shelf import Shelf
from trainer.data.tensor_store import TensorStore, hash_key, tell_outcome
from trainer.data.text_plan import embedding_bytes
from trainer.devices import features_of, give_back_cached_memory, is_out_of_memory
from trainer.errors import UserError
from trainer.families.base import Conditioning, Family
from trainer.file_states import FileDigests
from trainer.ranks import ALONE, Ranks
from trainer.runs.events import EventSink

_ENCODE_PIXELS = 1024 * 1024
_ENCODE_PICTURES = 16
_READERS = 8
_READ_AT_ONCE = 64
_TEXTS_AT_ONCE, _TEXTS_AT_ONCE_ON_CPU = 16, 1
"""Captions that go through the text encoders together: on the CPU that gains next to nothing."""
FILES = "files"
"""Folder in that of the latents: what is remembered of picture files."""


@dataclass(frozen=True)
class View:
    """One way of looking at a picture file: its bucket and scaling, and its crop, mirror image and colours."""

    path: Path
    placement: Placement
    augmentation: Augmentation


@dataclass(frozen=True)
class _Group:
    """Views that are encoded together."""

    views: list[View]
    keys: dict[View, str]
    known: dict[View, Tensor]
    loading: dict[View, Future[Tensor | BaseException]]


class LatentCache:
    """Latents of picture views: the mean of the VAE's distribution, so that the same picture is the same each time.

    Keyed by the picture's bytes, the VAE, the placement and the augmentation. Held in memory, and on disk where a
    folder is given.

    Attributes:
        digests: SHA-256 of the picture files that ``fill`` could read.
    """

    def __init__(self, family: Family, folder: Path | None, events: EventSink, ranks: Ranks = ALONE) -> None:
        """Without a folder results are kept in memory only; with one, ``ranks`` share the encoding."""
        self._family = family
        self._ranks = ranks
        self._store = TensorStore(folder, events)
        self._files = FileDigests(folder and folder / FILES)
        self._events = events
        self._latents: dict[View, Tensor] = {}
        self.digests: dict[Path, str] = {}

    def fill(self, views: Iterable[View], check_stop: Callable[[], None]) -> dict[Path, str]:
        """Compute what is missing, with ``progress`` events; the last tells how many pictures were encoded anew.

        Returns unusable pictures and why. Views are encoded in fixed groups of one bucket. A group of which anything is
        missing goes through the VAE whole, and what was missing is taken from it: the last bits of a result may depend
        on the batch it was in, and a resumed run must find the same ones.

        Raises UserError where the VAE gives no numbers or not even one picture fits into memory, and whatever
        ``check_stop`` raises, asked between groups.
        """
        wanted = sorted(set(views), key=lambda view: (view.placement.width, view.placement.height, str(view)))
        done, failed, encoded = 0, dict[Path, str](), set[Path]()
        with self._store, ThreadPoolExecutor(_READERS) as pool:
            self.digests = self._digests(pool, wanted, failed, check_stop)
            readable = [view for view in wanted if view.path in self.digests]
            total = len(readable)
            for share in self._ranks.shares(list(_groups(readable))):
                for group in _one_ahead(self._begin(pool, group) for group in share):
                    check_stop()
                    encoded |= {view.path for view in self._finish(group, failed)}
                    before, done = done, done + len(group.views)
                    if done * 100 // total > before * 100 // total:
                        self._events.emit("progress", what="encoding pictures", done=done, total=total)
                self._store.flush()  # for the others to find
        usable, encoded = {view.path for view in readable} - failed.keys(), self._ranks.union(encoded)
        tell_outcome(self._events, "picture", "encoded", total=len(usable), done=len(usable & encoded))
        return failed

    def latents(self, view: View) -> Tensor:
        """(4, h, w) float32, scaled. Raises KeyError for a view that ``fill`` was not given or could not read."""
        return self._latents[view]

    def _digests(
        self, pool: ThreadPoolExecutor, views: list[View], failed: dict[Path, str], check_stop: Callable[[], None]
    ) -> dict[Path, str]:
        paths = list(dict.fromkeys(view.path for view in views))
        digests: dict[Path, str] = {}
        for start in range(0, len(paths), _READ_AT_ONCE):
            check_stop()
            some = paths[start : start + _READ_AT_ONCE]
            for path, result in zip(some, pool.map(self._digest, some), strict=True):
                if isinstance(result, str):
                    digests[path] = result
                else:
                    failed[path] = why_unreadable(result)
        self._files.keep()
        return digests

    def _digest(self, path: Path) -> str | OSError:
        try:
            return self._files.digest(path)
        except OSError as error:
            return error

    def _begin(self, pool: ThreadPoolExecutor, views: list[View]) -> _Group:
        """Look on disk, and have what is not there decoded in the background."""
        keys = {view: latent_key(self.digests[view.path], self._family.fingerprint_vae, view) for view in views}
        known = {view: entry["latents"] for view in views if (entry := self._store.read(keys[view])) is not None}
        return _Group(views, keys, known, {view: pool.submit(self._load, view) for view in views if view not in known})

    def _load(self, view: View) -> Tensor | BaseException:
        """Its pixels: those that its key is of, or none."""
        try:
            data = unchanged(view.path.read_bytes(), self.digests[view.path])
            return load_pixels(data, view.placement, view.augmentation)
        except PICTURE_ERRORS as error:
            return error

    def _finish(self, group: _Group, failed: dict[Path, str]) -> list[View]:
        """Encode what is missing in the group. Returns these views."""
        pixels = _usable({view: future.result() for view, future in group.loading.items()}, failed)
        missing = list(pixels)
        if missing:
            pixels |= _usable({view: self._load(view) for view in group.known}, failed)
            views = [view for view in group.views if view in pixels]
            latents = encode_pixels(self._family, torch.stack([pixels[view] for view in views]))
            for view in missing:
                latent = latents[views.index(view)].clone()
                _check_finite(latent, view.path)
                group.known[view] = latent
                self._store.write(group.keys[view], {"latents": latent})
        self._latents |= group.known
        return missing


class TextCache:
    """Text encoder outputs by final caption. Only right while the text encoder does not learn."""

    def __init__(
        self,
        family: Family,
        settings: CaptionSettings,
        *,
        clip_skip: int,
        folder: Path | None,
        events: EventSink,
        ranks: Ranks = ALONE,
    ) -> None:
        """Without a folder results are kept in memory only; with one, ``ranks`` share the encoding."""
        self._family = family
        self._ranks = ranks
        self._settings = settings
        self._clip_skip = clip_skip
        self._store = TensorStore(folder, events)
        self._events = events
        self._encoded: dict[str, dict[str, Tensor]] = {}
        self._expected: dict[str, list[str]] = {}
        self._shelf = Shelf(0)

    def fill(self, captions: Iterable[str], check_stop: Callable[[], None]) -> None:
        """Read or compute these captions, with ``progress`` events; the last tells how many were encoded anew.

        As with latents, a group of which anything is missing is encoded whole, and what was missing is taken from it.
        Raises whatever ``check_stop`` raises, asked before each group.
        """
        wanted, encoded = sorted(set(captions)), set[str]()
        with self._store:
            for share in self._ranks.shares(list(self._groups(wanted))):
                for group in share:
                    check_stop()
                    before = len(self._encoded)
                    encoded |= self._fill_group(group)
                    done = len(self._encoded)
                    if done * 100 // len(wanted) > before * 100 // len(wanted):
                        self._events.emit("progress", what="encoding captions", done=done, total=len(wanted))
                self._store.flush()  # for the others to find
        done = len(self._ranks.union(encoded))
        tell_outcome(self._events, "caption", "encoded", total=len(wanted), done=done)

    def _fill_group(self, group: list[str]) -> set[str]:
        """Read or compute captions that are encoded together. Returns those that were missing."""
        known = {caption: row for caption in group if (row := self._store.read(self._key(caption))) is not None}
        missing = [caption for caption in group if caption not in known]
        if missing:
            known = self._rows_of(group) | known
        for caption in missing:
            self._store.write(self._key(caption), known[caption])
        self._encoded |= known
        return set(missing)

    def expect(self, captions: Iterable[str], most_bytes: int) -> None:
        """Captions that are encoded when they come, those used last kept within ``most_bytes`` of memory.

        Each is then the very tensor that ``fill`` would have made of it.
        """
        groups = self._groups(sorted(set(captions)))
        self._expected, self._shelf = {caption: group for group in groups for caption in group}, Shelf(most_bytes)

    def encode(self, captions: list[str]) -> Conditioning:
        """Conditioning of captions as they are trained on, one row each.

        Those that neither ``fill`` nor ``expect`` was given are encoded together each time and not kept.
        """
        different = list(dict.fromkeys(captions))
        rows = {caption: row for caption in different if (row := self._row(caption)) is not None}
        if not rows:
            return self._encode(captions)  # stays on its device
        others = [caption for caption in different if caption not in rows]
        if others:
            rows |= self._rows_of(others)
        stacked = {name: torch.cat([rows[caption][name] for caption in captions]) for name in rows[captions[0]]}
        return Conditioning(stacked.pop("hidden_states"), stacked)

    def _row(self, caption: str) -> dict[str, Tensor] | None:
        """What is known of one caption, made where it is only expected; None where it is not even that."""
        if caption not in self._expected:
            return self._encoded.get(caption)
        row = self._shelf.take(caption) or self._store.read(self._key(caption))
        if row is None:
            rows = self._rows_of(self._expected[caption])
            row = rows.pop(caption)
            for other, encoded in rows.items():
                self._shelf.put(other, encoded)
        self._shelf.put(caption, row)
        return row

    def _groups(self, captions: list[str]) -> Iterator[list[str]]:
        """Captions that are encoded together: always the same ones, as the last bits may depend on the batch."""
        at_once = _TEXTS_AT_ONCE if features_of(self._family.text_device).beside_host else _TEXTS_AT_ONCE_ON_CPU
        return (captions[start : start + at_once] for start in range(0, len(captions), at_once))

    def _rows_of(self, captions: list[str]) -> dict[str, dict[str, Tensor]]:
        """Captions encoded together, one row each, which keeps nothing of the others in memory."""
        together = self._compute(captions)
        return {
            caption: {name: tensor[row : row + 1].clone() for name, tensor in together.items()}
            for row, caption in enumerate(captions)
        }

    def _compute(self, captions: list[str]) -> dict[str, Tensor]:
        conditioning = self._encode(captions)
        tensors = {"hidden_states": conditioning.hidden_states, **conditioning.extra}
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}

    @torch.no_grad()
    def _encode(self, captions: list[str]) -> Conditioning:
        kind = self._family.text_device.type
        with torch.autocast(kind, enabled=False):  # a step's autocast must not tell in what is kept
            return self._encode_plainly(captions)

    def _encode_plainly(self, captions: list[str]) -> Conditioning:
        return self._family.encode_captions(
            captions,
            max_token_length=self._settings.max_token_length,
            clip_skip=self._clip_skip,
            weighted=self._settings.weighted,
        )

    def _key(self, caption: str) -> str:
        settings = self._settings
        parts = (self._family.fingerprint_text, self._clip_skip, settings.max_token_length, settings.weighted)
        return hash_key("text", caption, str(self._family.text_dtype), *parts)


def latent_key(digest: str, fingerprint_vae: str, view: View) -> str:
    """The key of a view's latents; ``digest`` is the SHA-256 of the picture file."""
    place, change = view.placement, view.augmentation
    numbers = [place.width, place.height, place.scaled_width, place.scaled_height, change.crop_left, change.crop_top]
    return hash_key("latents", digest, fingerprint_vae, numbers, change.flip, change.hue_degrees, change.gamma)


def text_row_bytes(family: Family, settings: CaptionSettings) -> int:
    """What the cached embedding of one caption takes, as the family's text encoders make it."""
    return embedding_bytes(settings, family.text_width, family.text_dtype.itemsize)


def encode_pixels(family: Family, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) to mean latents (B, 4, h, w) on the CPU, in smaller batches where memory runs out.

    Raises UserError when not even one picture fits.
    """
    try:
        return family.encode_pixels(pixels).float().cpu().contiguous()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if len(pixels) == 1:
        size = f"{pixels.shape[3]} x {pixels.shape[2]}"
        raise UserError(
            "dataset.encode_memory",
            f"dataset.resolution: encoding one picture of {size} needs more memory than is free.",
            "Choose a smaller resolution, or close other programs that use the GPU.",
            "dataset.resolution",
        )
    give_back_cached_memory()
    half = len(pixels) // 2
    return torch.cat([encode_pixels(family, pixels[:half]), encode_pixels(family, pixels[half:])])


def _groups(views: list[View]) -> Iterator[list[View]]:
    """Neighbours of the same bucket, as many as are encoded together."""
    start = 0
    while start < len(views):
        width, height = views[start].placement.width, views[start].placement.height
        most = max(1, min(_ENCODE_PICTURES, _ENCODE_PIXELS // (width * height)))
        group = [
            view
            for view in views[start : start + most]
            if (view.placement.width, view.placement.height) == (width, height)
        ]
        yield group
        start += len(group)


def _one_ahead(groups: Iterator[_Group]) -> Iterator[_Group]:
    """The same groups, each begun before the one before it is finished: decoding goes on while the VAE encodes."""
    waiting: _Group | None = None
    for group in groups:
        if waiting is not None:
            yield waiting
        waiting = group
    if waiting is not None:
        yield waiting


def _usable(loaded: dict[View, Tensor | BaseException], failed: dict[Path, str]) -> dict[View, Tensor]:
    failed |= {view.path: why_unreadable(found) for view, found in loaded.items() if isinstance(found, BaseException)}
    return {view: found for view, found in loaded.items() if isinstance(found, Tensor)}


def _check_finite(latents: Tensor, path: Path) -> None:
    if not torch.isfinite(latents).all():
        raise UserError(
            "model.vae_not_finite",
            f"model.vae: the VAE gives no numbers (NaN) for {path.name}.",
            "Use another VAE, or set train.mixed_precision to no.",
            "model.vae",
        )
