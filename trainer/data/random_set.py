"""A training set of random latents in memory, as the real one in all else: to measure with, without pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from trainer.config import Config
from trainer.data.augment import Augmentation
from trainer.data.buckets import Placement, resolutions
from trainer.data.cache import text_row_bytes
from trainer.data.epoch import Entry
from trainer.data.folders import Picture
from trainer.data.text_plan import text_plan
from trainer.data.training_set import TrainingSet
from trainer.devices import seeded_generator
from trainer.families.base import Family

_CHANNELS = 4


def random_training_set(config: Config, family: Family, pictures: int) -> TrainingSet:
    """So many pictures of the first resolution of the settings, each with a caption of its own."""
    width, height = resolutions(config.dataset)[0]
    placement = Placement(width, height, width, height, 0, 0)  # exactly as asked for, whatever the buckets' step
    entries = [
        Entry(_picture(number, width, height), placement, (width, height), repeats=1, loss_weight=1.0)
        for number in range(pictures)
    ]
    texts = text_plan(config, entries, [], text_row_bytes(family, config.dataset.captions))
    shape = (_CHANNELS, height // family.latent_scale, width // family.latent_scale)
    return TrainingSet(config, entries, [], [], _RandomLatents(entries, shape, config.train.seed), None, texts, {})


def _picture(number: int, width: int, height: int) -> Picture:
    return Picture(
        path=Path(f"{number}.png"),
        source=None,
        key=f"random/{number}",
        caption=f"a picture, number {number}",
        caption_path=None,
        has_caption=True,
        repeats=1,
        is_regularization=False,
        width=width,
        height=height,
    )


class _RandomLatents:
    """Latents by picture, made once."""

    def __init__(self, entries: list[Entry], shape: tuple[int, int, int], seed: int) -> None:
        drawn = torch.randn(len(entries), *shape, generator=seeded_generator(seed, "random pictures"))
        self._latents = {entry.key: latents for entry, latents in zip(entries, drawn, strict=True)}

    def latents(self, members: list[tuple[Entry, Augmentation]]) -> Tensor:
        """See ``training_set``."""
        return torch.stack([self._latents[entry.key] for entry, _ in members])
