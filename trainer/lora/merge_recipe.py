"""What a merged LoRA says of how it was made, in its metadata, and reading that back. Never torch.

Written by ``merge.py`` and ``merge_model.py``. What comes from a file is somebody else's text: bounded and validated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import UserError
from trainer.lora.merge_settings import MergeSettings, Mode
from trainer.lora.strengths import Strength, parse_strength

MERGE_KEY = "lora_atelier_merge"
"""Metadata key of what was merged: JSON with files, their hashes, strengths and mode."""

MOST_SOURCES = 64
_LONGEST_TEXT = 200_000


@dataclass(frozen=True)
class Ingredient:
    """One LoRA of a merge: its file's name without folder, how strongly it went in, its hash (empty: not known)."""

    file: str
    strength: Strength
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """What a LoRA was merged from, and how.

    Attributes:
        kept: the share of the change's squared norm that it has, on average and in its worst layer; None for all.
    """

    ingredients: list[Ingredient]
    settings: MergeSettings
    kept: tuple[float, float] | None = None


class _Kept(BaseModel):
    mean: float = Field(ge=0, le=1)
    smallest: float = Field(ge=0, le=1)


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore")

    mode: Mode
    files: list[str] = Field(min_length=1, max_length=MOST_SOURCES)
    ratios: list[float | str]
    sha256: list[str] = []
    rank: int | None = Field(None, ge=1)
    conv_rank: int | None = Field(None, ge=1)
    density: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    kept_energy: _Kept | None = None


def read_recipe(metadata: Mapping[str, str]) -> Recipe | None:
    """The recipe in a LoRA file's metadata; None where there is none that can be followed."""
    text = metadata.get(MERGE_KEY, "")
    if not text or len(text) > _LONGEST_TEXT:
        return None
    try:
        record = _Record.model_validate(json.loads(text))
        strengths = [parse_strength(str(ratio)) for ratio in record.ratios]
    except (ValueError, RecursionError, ValidationError, UserError):
        return None
    if len(strengths) != len(record.files):
        return None
    hashes = [*record.sha256, *[""] * len(record.files)]
    named = zip(record.files, strengths, hashes, strict=False)
    kept = None if record.kept_energy is None else (record.kept_energy.mean, record.kept_energy.smallest)
    return Recipe([Ingredient(*each) for each in named], _settings(record), kept)


def _settings(record: _Record) -> MergeSettings:
    given: dict[str, Any] = record.model_dump(include={"mode", "rank", "conv_rank", "density", "seed"})
    return MergeSettings(**given).complete()
