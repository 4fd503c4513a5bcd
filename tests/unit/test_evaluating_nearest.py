"""The nearest training picture, against numpy's own correlation."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from trainer.curation.similar import fingerprint
from trainer.evaluating.nearest import nearest


def noise(seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(values)


def correlation(one: Image.Image, other: Image.Image) -> float:
    """Of the deviations from each channel's mean, in float64."""
    deviations = [np.asarray(each, np.float64) - np.asarray(each, np.float64).mean((0, 1)) for each in (one, other)]
    first, second = (each.ravel() for each in deviations)
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def test_the_nearest_is_found_with_its_correlation() -> None:
    training = [noise(seed) for seed in range(5)]
    picture = Image.blend(training[3], noise(9), 0.4)
    match = nearest(fingerprint(picture), [fingerprint(each) for each in training])
    assert match.index == 3 and not match.copied
    assert match.similarity == pytest.approx(correlation(picture, training[3]), abs=1e-5)


def test_copies_are_told_mirrored_too_but_not_in_other_colours() -> None:
    training = [fingerprint(noise(seed)) for seed in range(3)]
    mirrored = noise(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for picture in (noise(1), mirrored):
        match = nearest(fingerprint(picture), training)
        assert match.index == 1 and match.copied and match.similarity == pytest.approx(1, abs=1e-5)
    darker = Image.fromarray((np.asarray(noise(1)) * 0.5).astype(np.uint8))
    match = nearest(fingerprint(darker), training)
    assert match.index == 1 and match.similarity > 0.99 and not match.copied
    with pytest.raises(ValueError, match="no picture"):
        nearest(training[0], [])
