"""Which fixes there are, what each promises, and which finding of the doctor each is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["files", "pixels", "texts"]


@dataclass(frozen=True)
class Fix:
    """One fix.

    Attributes:
        label: on its button.
        promise: what will happen, for ``{count}`` files ("3 files"); Undo brings everything back.
        kind: moves or renames files, makes new pixels, or changes captions.
    """

    label: str
    promise: str
    kind: Kind


FIXES: dict[str, Fix] = {
    "set_aside": Fix("Set aside", "{count} will go to the set-aside folder, with captions and masks.", "files"),
    "rename_ending": Fix("Rename", "{count} will get the ending that fits, captions and masks too.", "files"),
    "rename_plain": Fix("Rename", "{count} will get a plain name, captions and masks too.", "files"),
    "separate": Fix("Give each its own", "All but the first will get a new name and a copy of the caption.", "files"),
    "to_utf8": Fix("Store as UTF-8", "The captions of {count} will be stored as UTF-8; their text stays.", "files"),
    "first_frame": Fix("Keep the first frame", "{count} will become a still picture.", "pixels"),
    "to_srgb": Fix("Convert to sRGB", "{count} will be saved in 8-bit sRGB, as you see them.", "pixels"),
    "background": Fix("Fill the background", "The transparent parts of {count} will be filled.", "pixels"),
    "upright": Fix("Turn for good", "{count} will be saved as you see them, without the mark.", "pixels"),
    "shrink": Fix("Save smaller", "{count} will be scaled to 4096 pixels along the longer side.", "pixels"),
    "trim": Fix("Cut the borders off", "{count} will be cropped to what is between the bars, masks too.", "pixels"),
    "save_readable": Fix("Save what can be read", "{count} will be cut to the part that can be read.", "pixels"),
    "merge_tag": Fix("Change to the usual one", "The captions of {count} will get the usual tag instead.", "texts"),
    "remove_tag": Fix("Remove the tag", "The tag will be removed from the captions of {count}.", "texts"),
    "add_trigger": Fix("Put it first", "The word will be put first in the captions of {count}.", "texts"),
}
"""By code. What a caption job does is no fix: ``CAPTION`` leads there."""

CAPTION = "caption"
"""Offered beside the fixes: have these pictures captioned."""

OFFERS: dict[str, tuple[str, ...]] = {
    "picture.unreadable": ("set_aside",),
    "picture.truncated": ("save_readable", "set_aside"),
    "picture.wrong_extension": ("rename_ending",),
    "picture.animated": ("first_frame", "set_aside"),
    "picture.cmyk": ("to_srgb",),
    "picture.deep": ("to_srgb",),
    "picture.profile": ("to_srgb",),
    "picture.transparent": ("background",),
    "picture.rotated": ("upright",),
    "picture.tiny": ("set_aside",),
    "picture.huge": ("shrink", "set_aside"),
    "picture.blurred": ("set_aside",),
    "picture.borders": ("trim",),
    "picture.extreme_aspect": ("set_aside",),
    "picture.duplicate": ("set_aside",),
    "picture.near_duplicate": ("set_aside",),
    "picture.odd_name": ("rename_plain",),
    "bucket.small": ("set_aside",),
    "caption.missing": (CAPTION,),
    "caption.empty": (CAPTION,),
    "caption.identical": (CAPTION,),
    "caption.long": (CAPTION,),
    "caption.mixed_style": (CAPTION,),
    "caption.trigger_missing": ("add_trigger",),
    "caption.shared": ("separate",),
    "caption.encoding": ("to_utf8",),
    "caption.no_picture": ("set_aside",),
    "tag.spelling": ("merge_tag", "remove_tag"),
    "mask.no_picture": ("set_aside",),
    "mask.unreadable": ("set_aside",),
    "mask.shape": ("set_aside",),
    "mask.empty": ("set_aside",),
}
"""Fixes by the code of a finding, the usual one first."""

SAFE: frozenset[tuple[str, str]] = frozenset(
    {
        ("picture.unreadable", "set_aside"),
        ("picture.duplicate", "set_aside"),
        ("picture.wrong_extension", "rename_ending"),
        ("picture.animated", "first_frame"),
        ("picture.cmyk", "to_srgb"),
        ("picture.deep", "to_srgb"),
        ("picture.profile", "to_srgb"),
        ("picture.huge", "shrink"),
        ("picture.odd_name", "rename_plain"),
        ("caption.encoding", "to_utf8"),
        ("caption.no_picture", "set_aside"),
        ("mask.no_picture", "set_aside"),
        ("mask.unreadable", "set_aside"),
    }
)
"""(finding, fix) that need no look first: training then sees the same, or what it should have seen."""

SAFE_TITLE = "all safe fixes"
"""What Undo calls them together."""

BACKGROUNDS: dict[str, str] = {
    "white": "White",
    "grey": "Grey",
    "black": "Black",
    "blur": "The picture itself, blurred",
}
"""What transparent parts can be filled with, by name."""
