"""How a step grows with batch, rank and resolution: each alone, as ratios to the first step. Never torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trainer.config import Config
from trainer.data.buckets import resolutions

_BATCHES = (2, 4, 8)
_RANKS = (4, 64, 128)
_SIDES = (1.5, 2)


class _Work(Protocol):
    @property
    def flops(self) -> int:
        """Of a step."""

    @property
    def operations(self) -> int:
        """Calls in a step."""


@dataclass(frozen=True)
class VariedStep:
    """What was measured of a step with other settings.

    Attributes:
        what: the setting that differs, in words.
        step_ms: its median.
        images_per_s: at that pace.
        work: what it computes.
        peak_bytes: the most memory it takes.
    """

    what: str
    step_ms: float
    images_per_s: float
    work: _Work
    peak_bytes: int


@dataclass(frozen=True)
class Growth:
    """A row of ``trainer bench --table``; all but ``what`` and ``step_ms`` are ratios to the first row."""

    what: str
    step_ms: float
    time: float
    images_per_s: float
    flops: float
    operations: float
    memory: float


def variations(config: Config) -> list[tuple[str, dict[str, Any]]]:
    """The settings as they are, and with one of them changed at a time: what it is called, and the changes."""
    batch, rank, (width, height) = config.train.batch_size, config.lora.rank, resolutions(config.dataset)[0]
    rows: list[tuple[str, dict[str, Any]]] = [(f"batch {batch}, rank {rank}, {width} x {height}", {})]
    rows += [(f"batch {batch * times}", {"train.batch_size": batch * times}) for times in _BATCHES]
    rows += [(f"rank {other}", {"lora.rank": other, "lora.alpha": other}) for other in _RANKS if other != rank]
    for times in _SIDES:
        side = (int(width * times), int(height * times))
        rows.append((f"{side[0]} x {side[1]}", {"dataset.resolution": [list(side)]}))
    return rows


def growth(steps: Sequence[VariedStep]) -> list[Growth]:
    """The rows of the table."""
    first = steps[0]
    return [
        Growth(
            what=each.what,
            step_ms=each.step_ms,
            time=round(each.step_ms / first.step_ms, 2),
            images_per_s=round(each.images_per_s / first.images_per_s, 2),
            flops=round(each.work.flops / first.work.flops, 2),
            operations=round(each.work.operations / first.work.operations, 2),
            memory=round(each.peak_bytes / first.peak_bytes, 2),
        )
        for each in steps
    ]


def growth_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table to read."""
    head = f"{'':<34}{'ms':>10}{'time':>8}{'images/s':>10}{'FLOP':>8}{'calls':>8}{'memory':>8}"
    return [head, *map(_line, rows), "All but ms are ratios to the first row."]


def _line(row: dict[str, Any]) -> str:
    ratios = f"{row['time']:>8.2f}{row['images_per_s']:>10.2f}{row['flops']:>8.2f}{row['operations']:>8.2f}"
    return f"{row['what']:<34}{row['step_ms']:>10.1f}{ratios}{row['memory']:>8.2f}"
