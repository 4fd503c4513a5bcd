"""What happens to a caption before the text encoder reads it, in sd-scripts' order. Never torch."""

from __future__ import annotations

import random
import re

from trainer.config import CaptionSettings

_WILDCARD = re.compile(r"\{([^{}]+)\}")
_OPEN, _CLOSE = "\ue000", "\ue001"  # stand for {{ and }} meanwhile; private-use characters, in nobody's captions


def process_caption(caption: str, settings: CaptionSettings, rng: random.Random) -> str:
    """The caption as it is trained on this time.

    Order: dropout of the whole caption; one line of several (the first without wildcards); prefix and suffix;
    ``{a|b}``; kept head, flexible middle and kept tail; shuffle and tag dropout of the middle. sd-scripts adds prefix
    and suffix before it picks a line, so that its inner lines go without; here every line has both.

    Args:
        caption: raw, with every line.
        settings: the dataset's caption settings.
        rng: source of all chance; the same state gives the same caption.
    """
    if settings.dropout > 0 and rng.random() < settings.dropout:
        return ""
    text = _pick_line(caption, settings, rng)
    text = " ".join(part for part in (settings.prefix, text, settings.suffix) if part)
    if settings.wildcards:
        text = _fill_wildcards(text, rng)
    separator = settings.keep_tokens_separator
    if settings.shuffle or settings.tag_dropout > 0 or (separator and separator in text):
        text = _rearrange(text, settings, rng)
    return text


def depends_on_chance(settings: CaptionSettings) -> bool:
    """Whether the same caption may come out in more than two forms (itself and empty): not worth caching."""
    return settings.shuffle or settings.tag_dropout > 0 or settings.wildcards


def for_validation(settings: CaptionSettings) -> CaptionSettings:
    """The same settings without dropout and shuffling, so that validation losses can be compared."""
    return settings.model_copy(update={"shuffle": False, "dropout": 0.0, "tag_dropout": 0.0})


def _pick_line(caption: str, settings: CaptionSettings, rng: random.Random) -> str:
    lines = [line.strip() for line in caption.splitlines() if line.strip()]
    if not lines:
        return ""
    return rng.choice(lines) if settings.wildcards and len(lines) > 1 else lines[0]


def _fill_wildcards(text: str, rng: random.Random) -> str:
    """``{a|b}`` becomes one of its choices; ``{{`` and ``}}`` become plain braces."""
    text = text.replace("{{", _OPEN).replace("}}", _CLOSE)
    text = _WILDCARD.sub(lambda match: rng.choice(match[1].split("|")), text)
    return text.replace(_OPEN, "{").replace(_CLOSE, "}")


def _rearrange(text: str, settings: CaptionSettings, rng: random.Random) -> str:
    head, middle, tail = _split(text, settings)
    if settings.shuffle:
        rng.shuffle(middle)
    if settings.tag_dropout > 0:
        middle = [tag for tag in middle if rng.random() >= settings.tag_dropout]
    return ", ".join(head + middle + tail)


def _split(text: str, settings: CaptionSettings) -> tuple[list[str], list[str], list[str]]:
    """Kept head, flexible middle, kept tail."""
    separator = settings.keep_tokens_separator
    if separator and separator in text:
        head, middle, *tail = text.split(separator, 2)
        return _tags(head), _tags(middle), _tags(tail[0]) if tail else []
    tags = [tag.strip() for tag in text.strip().split(",")]
    return tags[: settings.keep_tokens], tags[settings.keep_tokens :], []


def _tags(text: str) -> list[str]:
    return [tag.strip() for tag in text.split(",") if tag.strip()]
