"""Captions with the class word in place of the trigger, for differential output preservation. Never torch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from trainer.config import Config


def plain_caption(caption: str, trigger: str, class_word: str) -> str:
    """The caption with the class word in place of the trigger, whatever its case; without one, the class word alone.

    A caption without the trigger, such as one that was dropped out, must not be held back from being learned.
    """
    plain, replaced = replace_trigger(caption, trigger, class_word)
    return plain if replaced else class_word


def replace_trigger(caption: str, trigger: str, word: str) -> tuple[str, int]:
    """The caption with another word in place of the trigger, whatever its case, and how often it was there."""
    return re.subn(rf"(?<!\w){re.escape(trigger)}(?!\w)", lambda match: word, caption, flags=re.I)


def plain_captions(captions: Iterable[str], config: Config) -> list[str]:
    """The captions that are preserved beside those that are trained on, one for each; none where nothing is."""
    preserve, trigger = config.loss.preserve, config.output.trigger
    if preserve is None or trigger is None:
        return []
    return [plain_caption(caption, trigger, preserve.class_word) for caption in captions]
