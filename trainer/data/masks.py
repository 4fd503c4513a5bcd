"""Masks: how much each part of a picture counts in the loss, from files of their own or from the alpha channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from trainer.data.augment import Augmentation
from trainer.data.buckets import Placement
from trainer.data.cache import FILES
from trainer.data.epoch import Entry
from trainer.data.image_files import PICTURE_ERRORS, read_alpha, read_grey, unchanged, why_unreadable
from trainer.data.resample import resize
from trainer.data.tensor_store import TensorStore, hash_key, tell_outcome
from trainer.errors import UserError
from trainer.file_states import FileDigests
from trainer.runs.events import EventSink

MaskKind = Literal["mask", "alpha"]

_READERS = 8
_READ_AT_ONCE = 64
_NAMED = 3
_SHAPE_TOLERANCE = 0.02


@dataclass(frozen=True)
class _MaskView:
    """A mask as it lies over a picture: scaled, cropped and mirrored like it, whatever happens to the colours."""

    path: Path
    placement: Placement
    crop_left: int
    crop_top: int
    flip: bool


class MaskSource:
    """Masks of pictures in latent cells, (1, h, w) float32 from 0 to 1, kept in memory and on disk like latents."""

    def __init__(self, kind: MaskKind, cell_px: int, folder: Path | None, events: EventSink) -> None:
        """Masks of ``cell_px`` pixels a cell. Without a folder nothing is kept on disk."""
        self._kind = kind
        self._cell_px = cell_px
        self._store = TensorStore(folder, events)
        self._files = FileDigests(folder and folder / FILES)
        self._events = events
        self._masks: dict[_MaskView, Tensor] = {}

    def fill(self, members: Iterable[tuple[Entry, Augmentation]], check_stop: Callable[[], None]) -> dict[Path, str]:
        """Read or make these masks. Returns the pictures whose masks cannot be used, and why.

        Masks that show nothing, and pictures that their alpha channel shows whole, are told in ``warning`` events.
        """
        pictures = {
            view: entry.picture.path for entry, change in members if (view := self._view(entry, change)) is not None
        }
        failed, made, views = dict[Path, str](), set[Path](), sorted(pictures, key=str)
        with self._store, ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(views), _READ_AT_ONCE):
                check_stop()
                some = views[start : start + _READ_AT_ONCE]
                for view, found in zip(some, pool.map(self._find, some), strict=True):
                    if isinstance(found, BaseException):
                        failed[pictures[view]] = f"its mask cannot be used: {why_unreadable(found)}"
                        continue
                    self._masks[view] = found.mask
                    if found.is_new:
                        made.add(view.path)
                        self._store.write(found.key, {"mask": found.mask})
        self._files.keep()
        usable = {view.path for view in self._masks}
        tell_outcome(self._events, "mask", "scaled", total=len(usable), done=len(made))
        self._tell_odd_ones(pictures)
        return failed

    def masks(self, members: list[tuple[Entry, Augmentation]]) -> Tensor:
        """(B, 1, h, w) float32 on the CPU, of entries of one bucket; ones for pictures without a mask.

        Raises UserError for a mask that was lost since ``fill``.
        """
        return torch.stack([self._mask(entry, change) for entry, change in members])

    def _mask(self, entry: Entry, change: Augmentation) -> Tensor:
        view = self._view(entry, change)
        if view is None:
            return torch.ones(1, entry.placement.height // self._cell_px, entry.placement.width // self._cell_px)
        if view in self._masks:
            return self._masks[view]
        try:
            return self._load(view, view.path.read_bytes())
        except PICTURE_ERRORS as error:
            why = why_unreadable(error)
            raise UserError(
                "dataset.mask_lost",
                f"dataset.sources: the mask {view.path} was usable when the run began, now {why}.",
                "Put it back and resume the run.",
                "dataset.sources",
            ) from error

    def _view(self, entry: Entry, change: Augmentation) -> _MaskView | None:
        path = entry.picture.path if self._kind == "alpha" else entry.picture.mask
        if path is None:
            return None
        return _MaskView(path, entry.placement, change.crop_left, change.crop_top, change.flip)

    def _find(self, view: _MaskView) -> _Found | BaseException:
        try:
            digest = self._files.digest(view.path)
            key = mask_key(digest, self._kind, self._cell_px, view)
            stored = self._store.read(key)
            mask = self._load(view, unchanged(view.path.read_bytes(), digest)) if stored is None else stored["mask"]
            return _Found(key, mask, is_new=stored is None)
        except PICTURE_ERRORS as error:
            return error

    def _load(self, view: _MaskView, data: bytes) -> Tensor:
        place = view.placement
        image = read_alpha(data) if self._kind == "alpha" else read_grey(data)
        if image is None:
            return torch.ones(1, place.height // self._cell_px, place.width // self._cell_px)
        if abs(image.width * place.scaled_height / (image.height * place.scaled_width) - 1) > _SHAPE_TOLERANCE:
            raise ValueError("its sides are not in the picture's proportion")
        pixels = resize(image, place.scaled_width, place.scaled_height)
        pixels = pixels[view.crop_top : view.crop_top + place.height, view.crop_left : view.crop_left + place.width]
        if view.flip:
            pixels = pixels[:, ::-1]
        shares = torch.from_numpy(np.ascontiguousarray(pixels / np.float32(255)))
        return avg_pool2d(shares[None], self._cell_px)

    def _tell_odd_ones(self, pictures: dict[_MaskView, Path]) -> None:
        empty = {pictures[view] for view, mask in self._masks.items() if mask.max() == 0}
        whole = {pictures[view] for view, mask in self._masks.items() if mask.min() == 1}
        if empty:
            self._warn("dataset.empty_mask", empty, "with a mask that shows nothing; nothing is learned from that")
        if whole and self._kind == "alpha":
            self._warn("dataset.no_alpha", whole, "without a transparent part; all of it counts")

    def _warn(self, code: str, paths: set[Path], what: str) -> None:
        names = sorted(path.name for path in paths)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        count = "1 picture" if len(names) == 1 else f"{len(names)} pictures"
        message = f"{count} {what}: {', '.join(names[:_NAMED])}{more}."
        self._events.emit("warning", code=code, message=message, hint="Correct them, or leave them out.")


@dataclass(frozen=True)
class _Found:
    key: str
    mask: Tensor
    is_new: bool


def mask_key(digest: str, kind: MaskKind, cell_px: int, view: _MaskView) -> str:
    """The key of a mask; ``digest`` is the SHA-256 of the file it comes from."""
    place = view.placement
    numbers = [place.width, place.height, place.scaled_width, place.scaled_height, view.crop_left, view.crop_top]
    return hash_key("mask", digest, kind, cell_px, numbers, view.flip)
