"""Findings about pictures that are there more than once, and which of them is the best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from trainer.curation import similar
from trainer.curation.doctor.look import Look
from trainer.curation.doctor.report import Findings, named


def duplicates(looks: Mapping[Path, Look], captioned: Collection[Path], found: Findings) -> None:
    """The same file twice, and pictures that look alike; a picture's copies are compared once."""
    by_digest: dict[str, list[Path]] = defaultdict(list)
    for path, look in looks.items():
        if not look.error:
            by_digest[look.digest].append(path)
    best_ones = []
    for paths in by_digest.values():
        best = _best(paths, looks, captioned)
        if looks[best].pixels:
            best_ones.append(best)
        if len(paths) > 1:
            message = f"The same file {len(paths)} times: {named(paths)}."
            hint = "Keep one; use repeats to weight it."
            found.add("picture.duplicate", "warning", paths, message, hint, keep=best)
    prints = [fingerprint for path in best_ones if (fingerprint := looks[path].fingerprint) is not None]
    for group in similar.alike(prints):
        paths = [best_ones[index] for index in group]
        message = f"Look almost the same: {named(paths)}."
        hint = "Keep the best one. Mirrored and resized copies count; crops do not."
        keep = _best(paths, looks, captioned)
        found.add("picture.near_duplicate", "warning", paths, message, hint, keep=keep)


def _best(paths: Sequence[Path], looks: Mapping[Path, Look], captioned: Collection[Path]) -> Path:
    """The largest; among equals one with a caption, without losses, with the shortest name."""

    def rank(path: Path) -> tuple[int, bool, bool, int, str]:
        look = looks[path]
        lossy = look.format in ("JPEG", "MPO")
        return (-look.width * look.height, path not in captioned, lossy, len(path.name), path.name)

    return min(paths, key=rank)
