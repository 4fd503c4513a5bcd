"""From a picture file to the pixels that the VAE reads, with the random changes that the settings ask for."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trainer.config import AugmentSettings
from trainer.data.buckets import Placement
from trainer.data.image_files import read_rgb
from trainer.data.resample import Pixels, resize

# As sd-scripts: one picture in three is changed, half of these in hue (8 of OpenCV's 180 units), half in brightness.
_COLOR_SHARE = 0.33
_HUE_LIMIT_DEGREES = 16.0
_GAMMA_LIMITS = (0.95, 1.05)

# NTSC luma and chroma: turning the chroma plane changes the hue and keeps the luma.
_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


@dataclass(frozen=True)
class Augmentation:
    """What happens to a picture this time.

    Attributes:
        crop_left: pixels cut from the left after scaling.
        crop_top: pixels cut from the top after scaling.
        flip: mirrored left to right, after cropping.
        hue_degrees: turn of the hue.
        gamma: exponent of the values in 0..1; above 1 is darker.
    """

    crop_left: int
    crop_top: int
    flip: bool = False
    hue_degrees: float = 0.0
    gamma: float = 1.0


def no_augmentation(placement: Placement, *, flip: bool = False) -> Augmentation:
    """The centre crop, mirrored or not: what the latent cache holds."""
    return Augmentation(placement.crop_left, placement.crop_top, flip)


def draw_augmentation(settings: AugmentSettings, placement: Placement, rng: random.Random) -> Augmentation:
    """Draw this time's changes. The mirror is drawn first, so that it does not depend on the other settings."""
    flip = settings.flip and rng.random() < 0.5
    left, top = placement.crop_left, placement.crop_top
    if settings.random_crop:
        left = rng.randint(0, placement.scaled_width - placement.width)
        top = rng.randint(0, placement.scaled_height - placement.height)
    hue, gamma = 0.0, 1.0
    if settings.color and rng.random() < _COLOR_SHARE:
        if rng.random() < 0.5:
            hue = rng.uniform(-_HUE_LIMIT_DEGREES, _HUE_LIMIT_DEGREES)
        else:
            gamma = rng.uniform(*_GAMMA_LIMITS)
    return Augmentation(left, top, flip, hue, gamma)


def draw_variant(settings: AugmentSettings, placement: Placement, key: str, number: int) -> Augmentation:
    """The ``number``-th cached form of the picture ``key``, not mirrored: the same in every run, whatever its seed."""
    unmirrored = settings.model_copy(update={"flip": False})
    return draw_augmentation(unmirrored, placement, random.Random(f"{key}/variant {number}"))


def cached_augmentations(
    settings: AugmentSettings, placement: Placement, key: str, variants: int
) -> list[Augmentation]:
    """Every form in which a picture is cached: as it is or its variants, each mirrored too where mirroring is on."""
    if settings.changes_pixels:
        forms = [draw_variant(settings, placement, key, number) for number in range(variants)]
    else:
        forms = [no_augmentation(placement)]
    flips = (False, True) if settings.flip else (False,)
    return list(dict.fromkeys(replace(form, flip=flip) for form in forms for flip in flips))


def pick_cached(
    settings: AugmentSettings, placement: Placement, key: str, variants: int, rng: random.Random
) -> Augmentation:
    """One of ``cached_augmentations``. The mirror is drawn as ``draw_augmentation`` does."""
    flip = settings.flip and rng.random() < 0.5
    if not settings.changes_pixels:
        return no_augmentation(placement, flip=flip)
    return replace(draw_variant(settings, placement, key, rng.randrange(variants)), flip=flip)


def load_pixels(data: bytes, placement: Placement, augmentation: Augmentation) -> Tensor:
    """Decode, scale, crop and change a picture.

    Args:
        data: the bytes of the picture file.
        placement: its bucket and scaled size.
        augmentation: where to crop, and what to change.

    Returns:
        (3, height, width) float32 in [-1, 1].

    Raises:
        one of ``image_files.PICTURE_ERRORS`` for a picture that cannot be decoded.
    """
    pixels = resize(read_rgb(data), placement.scaled_width, placement.scaled_height)
    left, top = augmentation.crop_left, augmentation.crop_top
    pixels = pixels[top : top + placement.height, left : left + placement.width] / np.float32(255)
    pixels = _change_color(pixels, augmentation)
    if augmentation.flip:
        pixels = pixels[:, ::-1]
    channels_first = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(channels_first) * 2 - 1


def _change_color(pixels: Pixels, augmentation: Augmentation) -> Pixels:
    """(H, W, 3) in 0..1, before and after."""
    if augmentation.hue_degrees:
        pixels = pixels @ _hue_matrix(augmentation.hue_degrees).T
    if augmentation.gamma != 1.0:
        pixels = pixels.clip(0, 1) ** np.float32(augmentation.gamma)
    return pixels.clip(0, 1).astype(np.float32)


def _hue_matrix(degrees: float) -> Pixels:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return (np.linalg.inv(_RGB_TO_YIQ) @ turn @ _RGB_TO_YIQ).astype(np.float32)
