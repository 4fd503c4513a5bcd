"""Where the subject of a picture is, by what stands out: edges and colours unlike the rest. Numpy and Pillow only.

What stands out follows two findings: subjects differ from the picture's mean colour once fine texture is blurred away
(Achanta et al., "Frequency-tuned salient region detection", CVPR 2009), and they have more edges than their
surroundings. Sums over windows come from an integral image (Crow, "Summed-area tables", SIGGRAPH 1984).
No face is looked for and nothing is recognised: it is a better guess than the centre, not more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

SIDE_PX = 96
"""Pictures are looked at in this size: subjects are larger than what is lost."""
_BLUR_PX = 1.5
_CENTRE_BIAS = 0.25
_INNER_SHARE = 0.6

Map = npt.NDArray[np.float64]


def saliency(image: Image.Image) -> Map:
    """How much each part of an RGB picture stands out: (h, w), at most SIDE_PX each way, 0 to 1."""
    small = image.convert("RGB")
    small.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    lab = np.asarray(small.filter(ImageFilter.GaussianBlur(_BLUR_PX)).convert("LAB"), dtype=np.float64)
    lab[..., 1:] = (lab[..., 1:] + 128) % 256  # Pillow's a and b are signed bytes
    contrast = np.linalg.norm(lab - lab.mean(axis=(0, 1)), axis=2)
    down, across = np.gradient(lab[..., 0]) if min(lab.shape[:2]) > 1 else (np.zeros(lab.shape[:2]),) * 2
    edges = np.hypot(down, across)
    return (_to_one(contrast) + _to_one(edges)) / 2 * _centre_weights(*contrast.shape)


def best_window(map_: Map, width: int, height: int) -> tuple[int, int]:
    """Left and top of the window of this size that holds most, best near its own middle. All in cells of the map.

    Of equally good ones it is the one closest to the picture's middle.
    """
    rows, columns = map_.shape
    table = np.pad(map_.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inner_width, inner_height = max(1, round(width * _INNER_SHARE)), max(1, round(height * _INNER_SHARE))
    whole = _window_sums(table, width, height)
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    inner = _window_sums(table, inner_width, inner_height)[top : top + len(whole), left : left + whole.shape[1]]
    scores = whole + inner
    tops, lefts = np.nonzero(scores >= scores.max() - 1e-9)
    middle = np.hypot(tops - (rows - height) / 2, lefts - (columns - width) / 2).argmin()
    return int(lefts[middle]), int(tops[middle])


def smart_offset(image: Image.Image, scaled: tuple[int, int], kept: tuple[int, int]) -> tuple[int, int]:
    """Left and top, in pixels of the picture once it is scaled to ``scaled``, of the part of size ``kept`` to keep."""
    map_ = saliency(image)
    rows, columns = map_.shape
    factors = columns / scaled[0], rows / scaled[1]
    window = (min(columns, max(1, round(kept[0] * factors[0]))), min(rows, max(1, round(kept[1] * factors[1]))))
    found = best_window(map_, *window)
    offsets = []
    for cell, cells, size, whole, part in zip(found, (columns, rows), window, scaled, kept, strict=True):
        room = cells - size  # where the window cannot move on the map, it stays in the middle
        offsets.append(round((whole - part) * (cell / room if room else 0.5)))
    return offsets[0], offsets[1]


def _window_sums(table: Map, width: int, height: int) -> Map:
    """Sums over all windows of a size, by their top and left, from an integral image."""
    return table[height:, width:] - table[:-height, width:] - table[height:, :-width] + table[:-height, :-width]


def _to_one(values: Map) -> Map:
    most = values.max()
    return values / most if most > 0 else values


def _centre_weights(rows: int, columns: int) -> Map:
    """1 in the middle, 1 - _CENTRE_BIAS in the corners: what stands out at the border is often something else."""
    down = np.linspace(-1, 1, rows)[:, None] if rows > 1 else np.zeros((1, 1))
    across = np.linspace(-1, 1, columns)[None] if columns > 1 else np.zeros((1, 1))
    return 1 - _CENTRE_BIAS * (down**2 + across**2) / 2
