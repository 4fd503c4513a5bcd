"""From captions to what the denoiser reads: computed with gradients, from the cache, or anew each time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trainer.config import Config
from trainer.data.cache import TextCache
from trainer.data.text_plan import TextPlan
from trainer.families.base import Conditioning, Family
from trainer.ranks import ALONE, Ranks
from trainer.runs.events import EventSink

_STATES = "hidden_states"

Texts = dict[str, Tensor]
"""What a step reads of its captions, by name, each with B rows: tokens, or embeddings that are ready."""


class CaptionEncoder:
    """Captions to what the denoiser reads, in two halves: a step that is replayed calls the second one only once.

    Attributes:
        read: what is done for each batch by itself; everything that no gradient goes through.
        encode: from there to the denoiser's input, on its device.
    """

    def __init__(self, read: Callable[[list[str]], Texts], encode: Callable[[Texts], Conditioning]) -> None:
        self.read, self.encode = read, encode

    def __call__(self, captions: list[str]) -> Conditioning:
        """Both halves."""
        return self.encode(self.read(captions))


def ready_made(encode: Callable[[list[str]], Conditioning]) -> CaptionEncoder:
    """An encoder that leaves nothing to the second half."""

    def read(captions: list[str]) -> Texts:
        found = encode(captions)
        return {**found.extra, _STATES: found.hidden_states}

    def encoded(texts: Texts) -> Conditioning:
        return Conditioning(texts[_STATES], {name: each for name, each in texts.items() if name != _STATES})

    return CaptionEncoder(read, encoded)


def caption_encoder(
    family: Family,
    config: Config,
    plan: TextPlan,
    cache_dir: Path,
    events: EventSink,
    check_stop: Callable[[], None],
    ranks: Ranks = ALONE,
) -> CaptionEncoder:
    """How this run's captions are encoded: as the text encoder learns, or through the cache.

    Args:
        family: the loaded model.
        config: the run's settings.
        plan: what is known of the captions, and how they are to be encoded.
        cache_dir: folder for caches; used where ``dataset.cache.to_disk`` is set.
        events: where progress goes.
        check_stop: called between captions; raises to stop.
        ranks: the processes that share the work of encoding.
    """
    settings, clip_skip = config.dataset.captions, config.train.clip_skip

    if not plan.texts_rest:
        events.emit("progress", what=plan.in_words(), done=1, total=1)
    if plan.how in ("learned", "each_time"):
        tokens = partial(
            family.tokenize_captions, max_token_length=settings.max_token_length, weighted=settings.weighted
        )
        encode = partial(family.encode_tokens, clip_skip=clip_skip, weighted=settings.weighted)
        if plan.how == "learned":
            return CaptionEncoder(tokens, encode)
        return ready_made(torch.no_grad()(lambda captions: encode(tokens(captions))))
    kept = config.dataset.cache.to_disk and not config.lora.merge_before_training  # they change the text encoder
    folder = cache_dir / "text" if kept else None
    cache = TextCache(family, settings, clip_skip=clip_skip, folder=folder, events=events, ranks=ranks)
    if plan.how == "beforehand":
        cache.fill(plan.known, check_stop)
    else:
        cache.expect(plan.known, plan.budget_bytes)
    return ready_made(cache.encode)
