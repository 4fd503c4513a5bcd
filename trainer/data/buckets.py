"""Aspect-ratio buckets as sd-scripts makes them: at what size a picture is trained, what is cut off. Never torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.config import BucketSettings, DatasetSettings

Resolution = tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """How a picture comes into its bucket: scaled first, then cropped. All in pixels.

    Attributes:
        width: of the bucket.
        height: of the bucket.
        scaled_width: of the picture after scaling, before cropping; at least ``width``.
        scaled_height: likewise, at least ``height``.
        crop_left: pixels cut from the left of the scaled picture.
        crop_top: pixels cut from its top.
    """

    width: int
    height: int
    scaled_width: int
    scaled_height: int
    crop_left: int
    crop_top: int

    @property
    def cropped_share(self) -> float:
        """Share of the scaled picture's area that is cut off."""
        return 1 - self.width * self.height / (self.scaled_width * self.scaled_height)


def resolutions(settings: DatasetSettings) -> list[Resolution]:
    """The (width, height) pairs that ``dataset.resolution`` stands for; a single side is a square."""
    given = settings.resolution if isinstance(settings.resolution, list) else [settings.resolution]
    pairs = [(each, each) if isinstance(each, int) else each for each in given]
    return list(dict.fromkeys(pairs))


def bucket_sizes(resolution: Resolution, settings: BucketSettings) -> list[Resolution]:
    """All bucket sizes of a resolution, sorted: sides are multiples of the step, areas at most the resolution's.

    The smallest side never lies above the resolution's shorter side, the largest never below its longer one.
    """
    if not settings.enabled:
        return [resolution]
    area, step = math.prod(resolution), _step(resolution, settings)
    smallest = max(step, _floor(min(settings.min, *resolution), step))
    largest = max(-(-settings.max // step) * step, -(-max(resolution) // step) * step)
    square = int(math.sqrt(area) // step) * step
    sizes = {(square, square)}
    for width in range(smallest, largest + 1, step):
        height = min(largest, _floor(area // width, step))
        if height >= smallest:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def place(width: int, height: int, settings: DatasetSettings, resolution: Resolution | None = None) -> Placement:
    """The bucket of a picture, and its scaling and centre crop.

    Args:
        width: of the upright picture in pixels.
        height: of the upright picture in pixels.
        settings: the dataset's settings.
        resolution: one of ``resolutions(settings)``; the first without it.
    """
    resolution = resolution or resolutions(settings)[0]
    buckets = settings.buckets
    if buckets.enabled and not buckets.upscale:
        return _keep_small(width, height, resolution, _step(resolution, buckets))
    sizes = bucket_sizes(resolution, buckets)
    bucket = (
        (width, height) if (width, height) in sizes else min(sizes, key=lambda size: _distance(size, width, height))
    )
    return _cover(width, height, bucket)


def _keep_small(width: int, height: int, resolution: Resolution, step: int) -> Placement:
    """sd-scripts' ``bucket_no_upscale``: larger pictures shrink to the area, others stay; sides floored to the step."""
    area = math.prod(resolution)
    scale = min(1.0, math.sqrt(area / (width * height)))
    if _round(min(width, height) * scale) < step:
        return _cover(width, height, _strip(width, height, area, step))
    scaled_width, scaled_height = _shrink(width, height, area, step) if scale < 1 else (width, height)
    return _centred(scaled_width, scaled_height, (_floor(scaled_width, step), _floor(scaled_height, step)))


def _strip(width: int, height: int, area: int, step: int) -> Resolution:
    """The bucket of a picture with a side below one step, where sd-scripts divides by zero: that side is one step."""
    longer = min(_floor(max(width, height, step), step), max(step, _floor(area // step, step)))
    return (longer, step) if width > height else (step, longer)


def _shrink(width: int, height: int, area: int, step: int) -> Resolution:
    """The size of about ``area`` whose one side is a multiple of the step: the side that changes the shape less."""
    aspect = width / height
    ideal_width = math.sqrt(area * aspect)
    by_width = _floor(_round(ideal_width), step)
    by_height = _floor(_round(area / ideal_width), step)
    aspect_by_width = by_width / max(step, _floor(_round(by_width / aspect), step))
    aspect_by_height = max(step, _floor(_round(by_height * aspect), step)) / by_height
    if abs(aspect_by_width - aspect) < abs(aspect_by_height - aspect):
        return by_width, max(step, _round(by_width / aspect))
    return max(step, _round(by_height * aspect)), by_height


def _cover(width: int, height: int, bucket: Resolution) -> Placement:
    scale = max(bucket[0] / width, bucket[1] / height)
    return _centred(max(bucket[0], _round(width * scale)), max(bucket[1], _round(height * scale)), bucket)


def _centred(scaled_width: int, scaled_height: int, bucket: Resolution) -> Placement:
    left, top = (scaled_width - bucket[0]) // 2, (scaled_height - bucket[1]) // 2
    return Placement(bucket[0], bucket[1], scaled_width, scaled_height, left, top)


def _distance(size: Resolution, width: int, height: int) -> float:
    return abs(size[0] / size[1] - width / height)


def _step(resolution: Resolution, settings: BucketSettings) -> int:
    return min(settings.step, *resolution)


def _round(value: float) -> int:
    """Half rounds up; Python's own ``round`` goes to the even neighbour."""
    return int(value + 0.5)


def _floor(value: int, step: int) -> int:
    return value // step * step
