"""Which pictures of a dataset deserve a look before training, and why. Never torch."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

from trainer.config import Config
from trainer.data.buckets import Placement
from trainer.data.captions import for_validation, process_caption
from trainer.data.epoch import Entry, Layout
from trainer.data.folders import Picture

HEAVY_CROP_SHARE = 0.25
SMALL_AREA_SHARE = 0.5

_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]+|_+")  # CLIP's tokenizer splits at these borders first
_LETTERS_PER_TOKEN = 7


@dataclass(frozen=True)
class PictureNote:
    """One picture, and what is to be said about it."""

    path: str
    note: str


@dataclass(frozen=True)
class PictureNotes:
    """Pictures by what is worth knowing about them.

    Attributes:
        skipped: left out.
        unused: regularization pictures for which there is no training picture to go with.
        cropped: lose more than a quarter of their area.
        enlarged: scaled up to their bucket.
        small: trained at less than half of the resolution's area.
        without_caption: no caption file, table entry or class prompt.
        empty_caption: a caption without text.
        long_caption: more tokens than the text encoder reads; counted roughly.
    """

    skipped: list[PictureNote]
    unused: list[PictureNote]
    cropped: list[PictureNote]
    enlarged: list[PictureNote]
    small: list[PictureNote]
    without_caption: list[PictureNote]
    empty_caption: list[PictureNote]
    long_caption: list[PictureNote]


def take_notes(config: Config, layout: Layout) -> PictureNotes:
    """Look at every picture that is trained on or held back."""
    entries = [*layout.training, *layout.validation]
    pictures = list({entry.picture.key: entry.picture for entry in entries}.values())
    return PictureNotes(
        skipped=[PictureNote(str(each.path), each.reason) for each in layout.collection.skipped],
        unused=[PictureNote(str(each.path), "there are fewer training pictures") for each in layout.unused],
        cropped=[_note(entry, _cropped(entry)) for entry in entries if _is_cropped(entry)],
        enlarged=[_note(entry, f"{_factor(entry):.2g} times as large") for entry in entries if _factor(entry) > 1],
        small=[_note(entry, _size(entry)) for entry in entries if _is_small(entry)],
        without_caption=[PictureNote(str(each.path), "no caption") for each in pictures if not each.has_caption],
        empty_caption=[
            PictureNote(str(each.path), "empty caption")
            for each in pictures
            if each.has_caption and not each.caption.strip()
        ],
        long_caption=_long_captions(config, pictures),
    )


def about_tokens(caption: str) -> int:
    """Roughly how many tokens CLIP's tokenizer makes of a caption: words, long ones in pieces, and punctuation."""
    return sum(math.ceil(len(piece) / _LETTERS_PER_TOKEN) for piece in _PIECE.findall(caption))


def caption_tokens(config: Config, picture: Picture) -> int:
    """Roughly how many tokens a picture's caption has when nothing of it is dropped."""
    settings = for_validation(config.dataset.captions_of(picture.source))
    return about_tokens(process_caption(picture.caption, settings, random.Random(0)))


def enlargement(picture: Picture, placement: Placement) -> float:
    """How many times as large a picture is trained; below 1 where it is made smaller."""
    return max(placement.scaled_width / picture.width, placement.scaled_height / picture.height)


def _long_captions(config: Config, pictures: list[Picture]) -> list[PictureNote]:
    limit = config.dataset.captions.max_token_length
    counted = [(picture, caption_tokens(config, picture)) for picture in pictures]
    return [PictureNote(str(picture.path), f"about {tokens} tokens") for picture, tokens in counted if tokens > limit]


def _note(entry: Entry, note: str) -> PictureNote:
    return PictureNote(str(entry.picture.path), note)


def _is_cropped(entry: Entry) -> bool:
    return entry.placement.cropped_share > HEAVY_CROP_SHARE


def _cropped(entry: Entry) -> str:
    return f"{entry.placement.cropped_share:.0%} cut off ({_size(entry)})"


def _factor(entry: Entry) -> float:
    return enlargement(entry.picture, entry.placement)


def _is_small(entry: Entry) -> bool:
    return math.prod(entry.bucket) < SMALL_AREA_SHARE * math.prod(entry.resolution)


def _size(entry: Entry) -> str:
    picture, (width, height) = entry.picture, entry.bucket
    return f"{picture.width} x {picture.height} trained at {width} x {height}"
