"""Whether a model repeats its training pictures: the nearest one of each picture that it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.curation.similar import ALIKE, MEAN_COLOUR_DISTANCE, SIDE_PX, Fingerprint


@dataclass(frozen=True)
class Match:
    """The training picture that a picture is nearest to.

    Attributes:
        index: of the training picture.
        similarity: correlation of the two at 16 x 16 px, from -1 to 1, mirrored where that is nearer.
        copied: whether they look the same, as the doctor judges copies in a dataset.
    """

    index: int
    similarity: float
    copied: bool


def nearest(picture: Fingerprint, among: Sequence[Fingerprint]) -> Match:
    """The nearest of some fingerprints (``similar.fingerprint``). Raises ValueError when there are none."""
    if not among:
        raise ValueError("there is no picture to compare with")
    table = np.stack(among)
    shapes, means = table[:, :-3], table[:, -3:]
    shape = picture[:-3]
    mirrored = shape.reshape(SIDE_PX, SIDE_PX, 3)[:, ::-1].ravel()
    similarities = np.maximum(shapes @ shape, shapes @ mirrored)
    index = int(similarities.argmax())
    same_colours = float(np.abs(means[index] - picture[-3:]).max()) < MEAN_COLOUR_DISTANCE
    similarity = float(similarities[index])
    return Match(index, similarity, similarity > ALIKE and same_colours)
