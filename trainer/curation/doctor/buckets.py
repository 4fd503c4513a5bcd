"""Findings about buckets with so few pictures that their batches stay small."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from trainer.config import DatasetSettings
from trainer.curation.doctor.report import Findings
from trainer.data.buckets import Resolution, place
from trainer.data.folders import Picture


def small_buckets(pictures: Iterable[Picture], resolution: int, batch_size: int, found: Findings) -> None:
    """Note pictures whose bucket is seen fewer times in an epoch than a batch holds, and the nearest fuller bucket."""
    settings = DatasetSettings()
    members: dict[Resolution, list[Path]] = defaultdict(list)
    seen: dict[Resolution, int] = defaultdict(int)
    for picture in pictures:
        placed = place(picture.width, picture.height, settings, (resolution, resolution))
        members[placed.width, placed.height].append(picture.path)
        seen[placed.width, placed.height] += picture.repeats
    full = [bucket for bucket, count in seen.items() if count >= batch_size]
    for bucket in sorted(set(members) - set(full)):
        count = seen[bucket]
        times = "1 picture" if count == 1 else f"{count} pictures"
        message = f"Trained at {_sides(bucket)}: {times} an epoch, fewer than the batch size {batch_size}."
        hint = "Batches of one size stay small."
        if full:
            nearest = min(full, key=lambda other: abs(other[0] / other[1] - bucket[0] / bucket[1]))
            hint = f"Crop to the shape of {_sides(nearest)}, the nearest bucket that fills a batch."
        found.add("bucket.small", "info", members[bucket], message, hint)


def _sides(bucket: Resolution) -> str:
    return f"{bucket[0]} x {bucket[1]}"
