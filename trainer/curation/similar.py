"""Finding pictures that look alike: tiny versions of them, compared by correlation. Numpy and Pillow only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE_PX = 16
ALIKE = 0.985
"""Correlation from which two pictures count as alike: a recompressed or resized copy has 0.995 and more."""
MEAN_COLOUR_DISTANCE = 24.0
"""Pictures whose mean colours differ by more (of 255, in one channel) are not alike, whatever their shapes."""
_FLAT = 4.0
"""Root mean square deviation (of 255) below which a picture is too plain to be told apart by its shapes."""
_CHUNK = 1024

Fingerprint = npt.NDArray[np.float32]


def small(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The picture at 16 x 16 px: (16, 16, 3) uint8."""
    return np.asarray(image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX))


def fingerprint(image: Image.Image) -> Fingerprint:
    """The picture as ``alike`` takes it."""
    return fingerprint_of_small(small(image))


def fingerprint_of_small(pixels: npt.NDArray[np.uint8]) -> Fingerprint:
    """What ``small`` gave, as (768,) float32 deviations from each channel's mean, then (3,) the means."""
    values = pixels.reshape(SIDE_PX, SIDE_PX, 3).astype(np.float32)
    means = values.mean(axis=(0, 1))
    deviations = (values - means).ravel()
    length = float(np.linalg.norm(deviations))
    floor = _FLAT * np.sqrt(deviations.size)
    return np.concatenate([deviations / max(length, floor), means]).astype(np.float32)


def alike(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Groups of two and more pictures that look alike, mirrored ones too, as indices into ``prints``, in order.

    Plain pictures never match: a correlation of noise says nothing. Pictures are compared in order of brightness, each
    only with those that are near enough in it, in blocks that keep memory in bounds.
    """
    if len(prints) < 2:
        return []
    table = np.stack(prints)
    brightness = table[:, -3:].mean(axis=1)
    order = np.argsort(brightness, kind="stable")
    shapes, means, brightness = table[order, :-3], table[order, -3:], brightness[order]
    mirrored = shapes.reshape(-1, SIDE_PX, SIDE_PX, 3)[:, :, ::-1].reshape(shapes.shape)
    leader = list(range(len(prints)))
    for start in range(0, len(prints), _CHUNK):
        block = slice(start, start + _CHUNK)
        limit = brightness[block][-1] + MEAN_COLOUR_DISTANCE
        others = slice(start, int(np.searchsorted(brightness, limit, side="right")))
        close = np.maximum(shapes[block] @ shapes[others].T, shapes[block] @ mirrored[others].T) > ALIKE
        for row, column in zip(*np.nonzero(np.triu(close, 1)), strict=True):
            first, second = int(row) + start, int(column) + start
            if np.abs(means[first] - means[second]).max() < MEAN_COLOUR_DISTANCE:
                _join(leader, int(order[first]), int(order[second]))
    groups: dict[int, list[int]] = {}
    for index in range(len(prints)):
        groups.setdefault(_root(leader, index), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def _join(leader: list[int], first: int, second: int) -> None:
    low, high = sorted((_root(leader, first), _root(leader, second)))
    leader[high] = low


def _root(leader: list[int], index: int) -> int:
    while leader[index] != index:
        leader[index] = leader[leader[index]]
        index = leader[index]
    return index
