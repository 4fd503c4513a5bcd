"""How a run's captions become embeddings: all beforehand, or each when it comes. Never torch.

The plan and the training both ask this module. What is decided here changes how long a run takes and what memory it
needs, never its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from trainer.config import CaptionSettings, Config
from trainer.data.captions import caption_forms, for_validation
from trainer.data.epoch import Entry
from trainer.data.plain_captions import plain_captions

MOST_FORMS = 64
"""Texts that wildcards may make of one caption and that are still listed; beyond, each is encoded when it comes."""

_CONTENT_TOKENS = 75
_CHUNK_TOKENS = 77
_GIB = 2**30

How = Literal["learned", "each_time", "beforehand", "shelf"]
"""With gradients; anew each time; all that are known before training; when they come, with those used last kept."""


@dataclass(frozen=True)
class TextPlan:
    """What is known of a run's captions before it begins, and what is done about them.

    Attributes:
        known: texts that captions are sure to become, as they are trained on, validated with and preserved.
        complete: whether there are no others: tags that are shuffled, dropped or warmed up cannot be listed.
        how: how they are encoded.
        row_bytes: what one embedding takes.
        budget_bytes: ``dataset.cache.text_gb``, what may be kept in memory.
    """

    known: frozenset[str]
    complete: bool
    how: How
    row_bytes: int
    budget_bytes: int

    @property
    def bytes(self) -> int:
        """What the embeddings of all known texts take."""
        return len(self.known) * self.row_bytes

    @property
    def texts_rest(self) -> bool:
        """Whether the text encoders have nothing to do while training."""
        return self.how == "beforehand" and self.complete

    def in_words(self) -> str:
        """What is done, as a sentence without its dot: ``24 texts (7 MiB) are encoded before training``."""
        if self.how == "learned":
            return "captions are encoded in each step, as the text encoder learns"
        if self.how == "each_time":
            return "captions are encoded in each step, as dataset.cache.text is off"
        texts = f"{len(self.known)} text{'' if len(self.known) == 1 else 's'}"
        others = "captions that vary too much to be listed are encoded when they come"
        if self.how == "shelf":
            budget = f"dataset.cache.text_gb ({self.budget_bytes / _GIB:g})"
            kept = "and those used last are kept" if self.budget_bytes >= self.row_bytes else "and none is kept"
            listed = (
                f"{texts} would take {_size(self.bytes)}, more than {budget}: each is encoded when it comes, {kept}"
            )
            return listed if self.complete else f"{listed}; other {others}"
        listed = f"{texts} ({_size(self.bytes)}) {'is' if len(self.known) == 1 else 'are'} encoded before training"
        if self.complete:
            return listed
        return f"{listed}; {others}" if self.known else others


def text_plan(config: Config, training: Iterable[Entry], validation: Iterable[Entry], row_bytes: int) -> TextPlan:
    """List what captions can become, and decide.

    Args:
        config: the run's settings.
        training: entries trained on.
        validation: entries held back.
        row_bytes: of one embedding, see ``embedding_bytes``.
    """
    forms = list(_caption_forms(config, training, validation))
    known = {text for listed in forms for text in listed or ()}
    return plan_texts(config, known, None not in forms, row_bytes)


def plan_texts(config: Config, texts: Iterable[str], complete: bool, row_bytes: int) -> TextPlan:
    """Decide about texts that are known; captions that are preserved beside them are added."""
    known = frozenset(texts)
    known |= frozenset(plain_captions(known, config))
    budget = int(config.dataset.cache.text_gb * _GIB)
    return TextPlan(known, complete, _how(config, len(known) * row_bytes, budget), row_bytes, budget)


def embedding_bytes(captions: CaptionSettings, text_width: int, number_bytes: int) -> int:
    """What the denoiser's input of one caption takes.

    Args:
        captions: how long captions are.
        text_width: numbers per token that the text encoders give together.
        number_bytes: of one number, 2 or 4.
    """
    return captions.max_token_length // _CONTENT_TOKENS * _CHUNK_TOKENS * text_width * number_bytes


def _how(config: Config, known_bytes: int, budget_bytes: int) -> How:
    if config.lora.train != "unet":
        return "learned"
    if not config.dataset.cache.text:
        return "each_time"
    return "beforehand" if known_bytes <= budget_bytes else "shelf"


def _caption_forms(
    config: Config, training: Iterable[Entry], validation: Iterable[Entry]
) -> Iterator[list[str] | None]:
    """What each entry's caption can become; None where that is too much to list."""
    for entry in training:
        yield caption_forms(entry.picture.caption, config.dataset.captions_of(entry.picture.source), MOST_FORMS)
    for entry in validation:
        how = for_validation(config.dataset.captions_of(entry.picture.source))
        yield caption_forms(entry.picture.caption, how, MOST_FORMS)


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB / 2 else f"{count / 2**20:.1f} MiB"
