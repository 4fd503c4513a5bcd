"""Embedded colour profiles: what they are called, and whether ignoring them shows."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

from trainer.data.image_files import in_srgb

_STEPS = (0, 64, 128, 192, 255)


@functools.lru_cache(maxsize=64)
def profile_shift(profile: bytes, mode: str) -> tuple[str, int]:
    """A profile's name, and by how much (of 255) colours are off where its numbers are taken for sRGB.

    A profile that cannot be used counts as sRGB, as every viewer does: ("", 0).

    Args:
        profile: the ICC profile's bytes.
        mode: ``RGB`` or ``L``, of the picture that holds it.
    """
    levels = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS), axis=-1).reshape(1, -1, 3).astype(np.uint8)
    patches = Image.fromarray(levels).convert(mode)
    shown = in_srgb(patches, profile)
    if shown is None:
        return "", 0
    off = np.abs(np.asarray(shown.convert("RGB"), dtype=np.int16) - np.asarray(patches.convert("RGB"), dtype=np.int16))
    return _name(profile), int(off.max())


def _name(profile: bytes) -> str:
    return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() or "without a name"
