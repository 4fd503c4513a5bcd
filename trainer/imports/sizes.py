"""Resolutions and buckets as other trainers write them: ``"512,768"``, ``512``, ``[512, 768]``, ``"512x768"``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainer.imports import values
from trainer.imports.draft import Draft

_MULTIPLE = 8
"""Sides of pictures are multiples of it, as a VAE makes one of 8 pixels."""
_BUCKET_KEYS = ("enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale")


def put_resolution(draft: Draft, key: str, sizes: list[Any] | None = None) -> None:
    """Set the resolution from one size of sd-scripts, ``side`` or ``width,height``, or from one for each data set."""
    given = sizes if sizes is not None else [draft.value(key)] if draft.is_given(key) else []
    read = [size for each in given if (size := _size(each)) is not None]
    if not read:
        draft.lost(key, "not a size; write 512 or 512,768") if given else None
        draft.unused(key, "empty in the file")
        return
    distinct = list(dict.fromkeys(read))
    note = ""
    if sizes is not None and len(distinct) > 1:
        note = "the data sets differ in resolution; here every picture is trained at each of them"
    put_sizes(draft, distinct, key, note=note)


def put_sizes(draft: Draft, sizes: list[tuple[int, int]], *keys: str, note: str = "") -> None:
    """Set the resolution from (width, height) pairs; sides are rounded to what pictures can have here."""
    rounded = [(_rounded(width), _rounded(height)) for width, height in sizes]
    if rounded != sizes:
        note = note or f"rounded to a multiple of {_MULTIPLE}"
    squares = [width for width, height in rounded if width == height]
    value: Any = [list(pair) for pair in rounded]
    if len(squares) == len(rounded):
        value = squares[0] if len(squares) == 1 else squares
    draft.put("dataset.resolution", value, *keys, note=note)


def put_buckets(draft: Draft, own: Mapping[str, Any] | None = None, own_key: str = "") -> None:
    """Set the buckets from sd-scripts' names.

    Args:
        draft: with these names as keys.
        own: what a dataset config says, which wins.
        own_key: the key that this came under.
    """
    own = own or {}
    found = {key: (own[key], own_key) if key in own else (draft.value(key), key) for key in _BUCKET_KEYS}
    enabled, key = found["enable_bucket"]
    draft.put("dataset.buckets.enabled", bool(values.flag(enabled)), key)
    if values.flag(enabled):
        for name, setting in (("min_bucket_reso", "min"), ("max_bucket_reso", "max"), ("bucket_reso_steps", "step")):
            _put_bucket_size(draft, setting, *found[name])
        no_upscale, key = found["bucket_no_upscale"]
        draft.put("dataset.buckets.upscale", not values.flag(no_upscale), key)
    draft.all_unused(_BUCKET_KEYS, "buckets are off, or the dataset config wins over it")


def _put_bucket_size(draft: Draft, setting: str, given: Any, key: str) -> None:
    size = values.whole(given)
    if not size:
        draft.unused(key, "empty in the file")
        return
    rounded = max(_MULTIPLE if setting == "step" else 64, round(size / _MULTIPLE) * _MULTIPLE)
    note = "" if rounded == size else f"{size} is not possible here; sides are multiples of {_MULTIPLE}"
    draft.put(f"dataset.buckets.{setting}", rounded, key, note=note)


def _size(given: Any) -> tuple[int, int] | None:
    """Width and height; one number is a square."""
    parts = given if isinstance(given, list | tuple) else re.split(r"[,x\s]+", str(given).strip(" ()[]"))
    sides = [whole for part in parts if (whole := values.whole(part))]
    if len(sides) != len(parts) or len(sides) not in (1, 2):
        return None
    return sides[0], sides[-1]


def _rounded(side: int) -> int:
    return max(64, round(side / _MULTIPLE) * _MULTIPLE)
