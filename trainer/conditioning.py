"""From captions to what the denoiser reads: computed with gradients, from the cache, or anew each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from trainer.config import Config
from trainer.data.cache import TextCache
from trainer.data.text_plan import TextPlan
from trainer.families.base import Conditioning, Family
from trainer.runs.events import EventSink

CaptionEncoder = Callable[[list[str]], Conditioning]


def caption_encoder(
    family: Family,
    config: Config,
    plan: TextPlan,
    cache_dir: Path,
    events: EventSink,
    check_stop: Callable[[], None],
) -> CaptionEncoder:
    """How this run's captions are encoded: as the text encoder learns, or through the cache.

    Args:
        family: the loaded model.
        config: the run's settings.
        plan: what is known of the captions, and how they are to be encoded.
        cache_dir: folder for caches; used where ``dataset.cache.to_disk`` is set.
        events: where progress goes.
        check_stop: called between captions; raises to stop.
    """
    settings, clip_skip = config.dataset.captions, config.train.clip_skip

    def encode(texts: list[str]) -> Conditioning:
        return family.encode_captions(
            texts, max_token_length=settings.max_token_length, clip_skip=clip_skip, weighted=settings.weighted
        )

    if not plan.texts_rest:
        events.emit("progress", what=plan.in_words(), done=1, total=1)
    if plan.how == "learned":
        return encode
    if plan.how == "each_time":
        return torch.no_grad()(encode)
    kept = config.dataset.cache.to_disk and not config.lora.merge_before_training  # they change the text encoder
    folder = cache_dir / "text" if kept else None
    cache = TextCache(family, settings, clip_skip=clip_skip, folder=folder, events=events)
    if plan.how == "beforehand":
        cache.fill(plan.known, check_stop)
    else:
        cache.expect(plan.known, plan.budget_bytes)
    return cache.encode
