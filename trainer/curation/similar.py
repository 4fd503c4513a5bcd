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


def fingerprint(image: Image.Image) -> Fingerprint:
    """The picture at 16x16 px. Returns (768,) float32: deviations from each channel's mean, then (3,) the means."""
    small = image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    means = pixels.mean(axis=(0, 1))
    deviations = (pixels - means).ravel()
    length = float(np.linalg.norm(deviations))
    floor = _FLAT * np.sqrt(deviations.size)
    return np.concatenate([deviations / max(length, floor), means]).astype(np.float32)


def alike(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Groups of two and more pictures that look alike, as indices into ``prints``, in order.

    Plain pictures never match: a correlation of noise says nothing.
    """
    if len(prints) < 2:
        return []
    table = np.stack(prints)
    shapes, means = table[:, :-3], table[:, -3:]
    leader = list(range(len(prints)))
    for start in range(0, len(prints), _CHUNK):
        block = slice(start, start + _CHUNK)
        close = shapes[block] @ shapes.T > ALIKE
        for row, column in zip(*np.nonzero(close), strict=True):
            first, second = int(row) + start, int(column)
            if first < second and np.abs(means[first] - means[second]).max() < MEAN_COLOUR_DISTANCE:
                leader[_root(leader, second)] = _root(leader, first)
    groups: dict[int, list[int]] = {}
    for index in range(len(prints)):
        groups.setdefault(_root(leader, index), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def _root(leader: list[int], index: int) -> int:
    while leader[index] != index:
        leader[index] = leader[leader[index]]
        index = leader[index]
    return index
