"""From captions to what the denoiser reads: computed with gradients, from the cache, or anew each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from trainer.config import Config
from trainer.data.cache import TextCache
from trainer.data.captions import depends_on_chance
from trainer.families.base import Conditioning, Family
from trainer.runs.events import EventSink

CaptionEncoder = Callable[[list[str]], Conditioning]


def caption_encoder(family: Family, config: Config, cache_dir: Path, events: EventSink) -> CaptionEncoder:
    """How this run's captions are encoded: as the text encoder learns, through the cache where it helps."""
    captions, clip_skip = config.dataset.captions, config.train.clip_skip

    def encode(texts: list[str]) -> Conditioning:
        return family.encode_captions(
            texts, max_token_length=captions.max_token_length, clip_skip=clip_skip, weighted=captions.weighted
        )

    if config.lora.train != "unet":
        return encode
    if not config.dataset.cache.text or depends_on_chance(captions):
        return torch.no_grad()(encode)
    folder = cache_dir / "text" if config.dataset.cache.to_disk else None
    return TextCache(family, captions, clip_skip=clip_skip, folder=folder, events=events).encode
