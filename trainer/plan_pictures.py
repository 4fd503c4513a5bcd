"""Where every picture of a plan comes: its bucket, what is cut off, how often it is seen. Never torch."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.data.buckets import Placement
from trainer.data.epoch import Entry, Layout


@dataclass(frozen=True)
class PlacedPicture:
    """A picture at one resolution.

    Attributes:
        path: of the file.
        width: of the upright picture in pixels.
        height: likewise.
        bucket: (width, height) that it is trained at.
        box: what is kept of it, as shares of its sides: left, top, right, bottom.
        cropped_share: of its area.
        repeats: times it is seen in an epoch; 0 for one that is only validated on.
        is_regularization: whether it shows what the model should keep doing.
    """

    path: str
    width: int
    height: int
    bucket: tuple[int, int]
    box: tuple[float, float, float, float]
    cropped_share: float
    repeats: int
    is_regularization: bool


def placed_pictures(layout: Layout) -> list[PlacedPicture]:
    """All pictures that are trained on, then those held back; bucket by bucket, what is cropped most first."""
    trained = [_placed(entry, entry.repeats) for entry in layout.training]
    held_back = [_placed(entry, 0) for entry in layout.validation]
    return [
        picture
        for group in (trained, held_back)
        for picture in sorted(group, key=lambda each: (each.bucket, -each.cropped_share, each.path))
    ]


def crop_box(placement: Placement) -> tuple[float, float, float, float]:
    """What is kept of a picture, as shares of its sides: left, top, right, bottom."""
    return (
        round(placement.crop_left / placement.scaled_width, 5),
        round(placement.crop_top / placement.scaled_height, 5),
        round((placement.crop_left + placement.width) / placement.scaled_width, 5),
        round((placement.crop_top + placement.height) / placement.scaled_height, 5),
    )


def _placed(entry: Entry, repeats: int) -> PlacedPicture:
    picture = entry.picture
    return PlacedPicture(
        path=str(picture.path),
        width=picture.width,
        height=picture.height,
        bucket=entry.bucket,
        box=crop_box(entry.placement),
        cropped_share=round(entry.placement.cropped_share, 4),
        repeats=repeats,
        is_regularization=picture.is_regularization,
    )
