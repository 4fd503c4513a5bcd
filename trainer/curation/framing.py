"""To what size a picture is scaled and what of it is cut off, as a matter of numbers: no pixels here.

A picture is scaled first and cropped then, as training does it (``trainer/data/buckets.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from trainer.config import BucketSettings, DatasetSettings
from trainer.data.buckets import place
from trainer.errors import Problem

SizeRule = Literal["keep", "longest", "shortest", "exact", "bucket"]
SIZE_RULES: tuple[SizeRule, ...] = get_args(SizeRule)
Crop = Literal["none", "centre", "smart", "hand"]
CROPS: tuple[Crop, ...] = get_args(Crop)
SMALLEST_PX, LARGEST_PX = 8, 16_384


@dataclass(frozen=True)
class Framing:
    """What is asked for.

    Attributes:
        rule: what ``width`` and ``height`` mean.
        width: pixels; the only number of ``longest``, ``shortest`` and ``bucket``. 0 for ``keep``.
        height: pixels, of ``exact``.
        crop: where the part that is kept lies. ``hand``: the boxes that were drawn, then the centre.
        aspect: width to height of what is kept; None where the size rule says it, or nothing is cropped.
        upscale: whether smaller pictures are enlarged.
    """

    rule: SizeRule = "keep"
    width: int = 0
    height: int = 0
    crop: Crop = "none"
    aspect: tuple[int, int] | None = None
    upscale: bool = False

    @property
    def has_shape(self) -> bool:
        """Whether it says of what shape the pictures become."""
        return self.aspect is not None or self.rule in ("exact", "bucket")


@dataclass(frozen=True)
class Frame:
    """The picture is scaled to ``scaled_*``; of that, ``width`` x ``height`` are kept. All in pixels."""

    scaled_width: int
    scaled_height: int
    width: int
    height: int

    def centre(self) -> tuple[int, int]:
        """Left and top of what is kept, in the middle."""
        return (self.scaled_width - self.width) // 2, (self.scaled_height - self.height) // 2


def framing_problems(framing: Framing) -> Iterator[Problem]:
    """What does not go together."""
    sides = {"exact": (framing.width, framing.height), "keep": ()}.get(framing.rule, (framing.width,))
    if not all(SMALLEST_PX <= side <= LARGEST_PX for side in sides):
        message = f"size: {' x '.join(map(str, sides))} px is not from {SMALLEST_PX} to {LARGEST_PX}."
        yield Problem("pictures.size", message, "512, 768 and 1024 are usual.", "size")
    if framing.aspect is not None and not all(1 <= side <= LARGEST_PX for side in framing.aspect):
        message = f"aspect: {framing.aspect[0]}:{framing.aspect[1]} is no shape."
        yield Problem("pictures.aspect", message, "1:1 is a square, 2:3 upright.", "aspect")
    if framing.aspect is not None and framing.rule in ("exact", "bucket"):
        message = f"aspect: the size ({framing.rule}) says the shape already."
        yield Problem("pictures.aspect", message, "Leave the aspect out, or choose another size.", "aspect")
    if framing.crop == "none" and (framing.rule == "exact" or framing.aspect is not None):
        message = "crop: without cropping, pictures cannot get another shape."
        yield Problem("pictures.crop", message, "Choose centre, smart or by hand.", "crop")
    if framing.crop in ("centre", "smart") and not framing.has_shape:
        message = f"crop: {framing.crop} needs a shape to crop to."
        yield Problem("pictures.crop", message, "Give an aspect such as 1:1, or an exact size or a bucket.", "crop")


def frame(width: int, height: int, framing: Framing) -> Frame:
    """The frame of an upright picture, or the part of it that was drawn by hand, of this size in pixels."""
    if framing.rule == "bucket":
        return _bucket_frame(width, height, framing)
    if framing.rule == "exact":
        kept = _largest(width, height, framing.width / framing.height)
        factor = _factor(framing.width / kept[0], framing)
        target = (framing.width, framing.height) if factor == framing.width / kept[0] else (0, 0)
        return _scaled(width, height, kept, factor, target)
    kept = _largest(width, height, framing.aspect[0] / framing.aspect[1]) if framing.aspect else (width, height)
    side = {"longest": max(kept), "shortest": min(kept)}.get(framing.rule)
    return _scaled(width, height, kept, 1.0 if side is None else _factor(framing.width / side, framing))


def _bucket_frame(width: int, height: int, framing: Framing) -> Frame:
    settings = DatasetSettings(resolution=framing.width, buckets=BucketSettings(upscale=framing.upscale))
    placed = place(width, height, settings)
    if framing.crop == "none":
        return Frame(placed.scaled_width, placed.scaled_height, placed.scaled_width, placed.scaled_height)
    return Frame(placed.scaled_width, placed.scaled_height, placed.width, placed.height)


def _largest(width: int, height: int, aspect: float) -> tuple[float, float]:
    """The largest part of this aspect."""
    return min(float(width), height * aspect), min(float(height), width / aspect)


def _factor(wanted: float, framing: Framing) -> float:
    return wanted if framing.upscale else min(1.0, wanted)


def _scaled(
    width: int, height: int, kept: tuple[float, float], factor: float, target: tuple[int, int] = (0, 0)
) -> Frame:
    kept_width, kept_height = target if all(target) else (_round(kept[0] * factor), _round(kept[1] * factor))
    scaled_width, scaled_height = _round(width * factor), _round(height * factor)
    return Frame(max(scaled_width, kept_width), max(scaled_height, kept_height), kept_width, kept_height)


def _round(value: float) -> int:
    return max(1, math.floor(value + 0.5))
