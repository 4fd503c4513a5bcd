"""What happens to a caption before the text encoder reads it, in sd-scripts' order. Never torch."""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import dataclass

from trainer.config import CaptionSettings

_WILDCARD = re.compile(r"\{([^{}]+)\}")
_OPEN, _CLOSE = "\ue000", "\ue001"  # stand for {{ and }} meanwhile; private-use characters, in nobody's captions


@dataclass(frozen=True)
class Moment:
    """When in the run a caption is read.

    Attributes:
        epoch: counted from 0.
        step: optimizer steps done.
        max_steps: of the whole run.
    """

    epoch: int = 0
    step: int = 0
    max_steps: int = 1


BEGINNING = Moment()


def process_caption(caption: str, settings: CaptionSettings, rng: random.Random, moment: Moment = BEGINNING) -> str:
    """The caption as it is trained on this time.

    Order: dropout of the whole caption, by chance or in every n-th epoch; one line of several (the first without
    wildcards); prefix and suffix; ``{a|b}``; kept head, flexible middle and kept tail; tag warm-up, shuffle and tag
    dropout of the middle; the secondary separator becomes the separator. sd-scripts adds prefix and suffix before it
    picks a line, so that its inner lines go without; here every line has both. It also leaves a ``|||`` standing where
    nothing is shuffled; here it is always taken out.

    Args:
        caption: raw, with every line.
        settings: the caption settings of the picture's source.
        rng: source of all chance; the same state gives the same caption.
        moment: when in the run.
    """
    if settings.dropout > 0 and rng.random() < settings.dropout:
        return ""
    if settings.dropout_every_n_epochs > 0 and (moment.epoch + 1) % settings.dropout_every_n_epochs == 0:
        return ""
    lines = _lines(caption, settings)
    text = _with_affixes(rng.choice(lines) if len(lines) > 1 else lines[0], settings)
    if settings.wildcards:
        text = "".join(rng.choice(choices) if len(choices) > 1 else choices[0] for choices in _choices(text))
    return _arranged(text, settings, rng, moment)


def caption_forms(caption: str, settings: CaptionSettings, most: int) -> list[str] | None:
    """Every text that ``process_caption`` can make of a caption, each once.

    None where they are more than ``most``, or where tags are shuffled, dropped or warmed up: those orders and
    selections are too many to be listed.
    """
    if settings.shuffle or settings.tag_dropout > 0 or settings.token_warmup_step > 0:
        return None
    texts = [_with_affixes(line, settings) for line in _lines(caption, settings)]
    drawn = [_choices(text) if settings.wildcards else [[text]] for text in texts]
    if sum(math.prod(map(len, choices)) for choices in drawn) > most:
        return None
    rng = random.Random(0)  # nothing is left to chance
    forms = [
        _arranged("".join(parts), settings, rng, BEGINNING)
        for choices in drawn
        for parts in itertools.product(*choices)
    ]
    if settings.dropout > 0 or settings.dropout_every_n_epochs > 0:
        forms.append("")
    return list(dict.fromkeys(forms))


def for_validation(settings: CaptionSettings) -> CaptionSettings:
    """The same settings without dropout, shuffling and warm-up, so that validation losses can be compared."""
    steady = {"shuffle": False, "dropout": 0.0, "dropout_every_n_epochs": 0, "tag_dropout": 0.0}
    return settings.model_copy(update={**steady, "token_warmup_step": 0.0})


def _lines(caption: str, settings: CaptionSettings) -> list[str]:
    """The lines one is picked from; at least one."""
    lines = [line.strip() for line in caption.splitlines() if line.strip()] or [""]
    return lines if settings.wildcards else lines[:1]


def _with_affixes(text: str, settings: CaptionSettings) -> str:
    return " ".join(part for part in (settings.prefix, text, settings.suffix) if part)


def _choices(text: str) -> list[list[str]]:
    """The text in pieces, each with its choices: ``{a|b}`` has two, what stands between has one.

    ``{{`` and ``}}`` become plain braces.
    """
    text = text.replace("{{", _OPEN).replace("}}", _CLOSE)
    pieces = _WILDCARD.split(text)  # every second one is what stood in braces
    choices = [piece.split("|") if number % 2 else [piece] for number, piece in enumerate(pieces)]
    return [[choice.replace(_OPEN, "{").replace(_CLOSE, "}") for choice in each] for each in choices]


def _arranged(text: str, settings: CaptionSettings, rng: random.Random, moment: Moment) -> str:
    varied = settings.shuffle or settings.tag_dropout > 0 or settings.token_warmup_step > 0
    if varied or (settings.keep_tokens_separator and settings.keep_tokens_separator in text):
        head, middle, tail = _split(text, settings)
        middle = middle[: _warmed_up(len(middle), settings, moment)]
        if settings.shuffle:
            rng.shuffle(middle)
        if settings.tag_dropout > 0:
            middle = [tag for tag in middle if rng.random() >= settings.tag_dropout]
        text = ", ".join(head + middle + tail)
    if settings.secondary_separator:
        text = text.replace(settings.secondary_separator, settings.separator)
    return text


def _warmed_up(count: int, settings: CaptionSettings, moment: Moment) -> int:
    """How many of ``count`` flexible tags are read at this step: from ``token_warmup_min`` in a line up to all."""
    steps = settings.token_warmup_step
    if steps < 1:
        steps = math.floor(steps * moment.max_steps)
    if moment.step >= steps:
        return count
    least = min(count, settings.token_warmup_min)
    return least + math.floor(moment.step * (count - least) / steps)


def _split(text: str, settings: CaptionSettings) -> tuple[list[str], list[str], list[str]]:
    """Kept head, flexible middle, kept tail."""
    separator = settings.keep_tokens_separator
    if separator and separator in text:
        head, middle, *tail = text.split(separator, 2)
        return _tags(head, settings), _tags(middle, settings), _tags(tail[0], settings) if tail else []
    tags = [tag.strip() for tag in text.strip().split(settings.separator)]
    return tags[: settings.keep_tokens], tags[settings.keep_tokens :], []


def _tags(text: str, settings: CaptionSettings) -> list[str]:
    return [tag.strip() for tag in text.split(settings.separator) if tag.strip()]
