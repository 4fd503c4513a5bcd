"""What pixels tell: how sharp a picture is, and whether it has borders. Numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, as Pillow's ``crop`` takes them."""

_BLOCKS = 8
_LEAST_GRADIENT = 8.0
"""Mean squared gradient (of 255) below which a part of the picture is too plain to judge."""
_ROUNDING = 20 / 12
"""Energy that rounding to whole levels (variance 1/12) adds to a Laplacian with weights 1, 1, 1, 1 and -4."""
_SHARPEST = 90

_PLAIN_DEVIATION = 4.0
_SAME_COLOUR = 10.0
_JUMP = 16.0
_JUMP_SHARE = 0.8
_LEAST_BORDER = 0.02
_MOST_BORDER = 0.8
_LEAST_FRAMED_AREA = 0.6


def sharpness(grey: Pixels) -> float | None:
    """How sharp the sharpest tenth of a picture's parts are; None where it is too plain to tell.

    The energy of the Laplacian relative to that of the gradient. For an edge blurred by a Gaussian of standard
    deviation s pixels it is 1 / (2 s^2), however strong the edge and however many there are: so flat artwork with few,
    clean edges is as sharp as a photograph, and a blurred background does not count against a sharp subject.
    (The variance of the Laplacian alone, Pech-Pacheco et al. 2000, calls everything smooth blurred.)

    Args:
        grey: (H, W) uint8.
    """
    values = grey.astype(np.float32)
    if min(values.shape) < _BLOCKS + 2:
        return None
    inner = values[1:-1, 1:-1]
    left, right, above, below = values[1:-1, :-2], values[1:-1, 2:], values[:-2, 1:-1], values[2:, 1:-1]
    gradient = _by_block(((right - left) / 2) ** 2 + ((below - above) / 2) ** 2)
    laplacian = _by_block((left + right + above + below - 4 * inner) ** 2)
    telling = gradient > _LEAST_GRADIENT
    if not telling.any():
        return None
    return float(np.percentile((laplacian[telling] - _ROUNDING).clip(0) / gradient[telling], _SHARPEST))


def _by_block(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The means of 8 x 8 equal parts."""
    height, width = (side // _BLOCKS for side in values.shape)
    parts = values[: height * _BLOCKS, : width * _BLOCKS].reshape(_BLOCKS, height, _BLOCKS, width)
    return np.asarray(parts.mean(axis=(1, 3)))


def borders(pixels: Pixels) -> Box | None:
    """What remains of a picture without the plain bars at opposite sides (letterbox, pillarbox, or both).

    Bars have one colour, the same at both sides, and the picture begins all along their edge at once. Where a subject
    stands before a plain background it begins in one place, so that is none. None where there are no bars.

    Args:
        pixels: (H, W, 3) uint8.
    """
    height, width = pixels.shape[:2]
    rows, columns = _bars(pixels), _bars(pixels.swapaxes(0, 1))
    if rows is None and columns is None:
        return None
    top, bottom = rows or (0, height)
    left, right = columns or (0, width)
    inside = (bottom - top) * (right - left)
    if inside < (1 - _MOST_BORDER) * height * width:
        return None
    if rows and columns and inside < _LEAST_FRAMED_AREA * height * width:
        return None  # as likely a square thing on a plain background
    whole = pixels[top:bottom, left:right]
    if rows and not _jumps(whole, pixels[0]):
        return None
    if columns and not _jumps(whole.swapaxes(0, 1), pixels[:, 0]):
        return None
    return (left, top, right, bottom)


def _bars(pixels: Pixels) -> tuple[int, int] | None:
    """Where the rows between the plain ones begin and end; None where one side has no bar or they differ."""
    if pixels[[0, -1]].std(axis=1, dtype=np.float32).max() > _PLAIN_DEVIATION:
        return None  # nearly all pictures: the rest need not be gone through
    deviation = pixels.std(axis=1, dtype=np.float32).max(axis=1)
    colours = pixels.mean(axis=1, dtype=np.float32)
    least = max(2, round(_LEAST_BORDER * len(pixels)))
    first = _plain_rows(deviation, colours)
    last = _plain_rows(deviation[::-1], colours[::-1])
    if min(first, last) < least or first + last >= len(pixels):
        return None
    if np.abs(colours[0] - colours[-1]).max() > _SAME_COLOUR:
        return None
    return first, len(pixels) - last


def _plain_rows(deviation: Floats, colours: Floats) -> int:
    """How many rows from the first on are plain and of its colour."""
    other = (deviation > _PLAIN_DEVIATION) | (np.abs(colours - colours[0]).max(axis=1) > _SAME_COLOUR)
    return int(np.argmax(other)) if other.any() else len(colours)


def _jumps(inside: Pixels, bar: Pixels) -> bool:
    """Whether the first and the last rows differ from the bar's colour nearly everywhere.

    The very first row may be a mixture of both; it is passed over.
    """
    depth = min(len(inside) - 1, 1 + len(inside) // 256)
    colour = bar.reshape(-1, 3).mean(axis=0)
    shares: list[Any] = [
        (np.abs(row.astype(np.float32) - colour).max(axis=1) > _JUMP).mean()
        for row in (inside[depth], inside[-1 - depth])
    ]
    return bool(min(shares) >= _JUMP_SHARE)
