"""From what a chatting model says to a caption, without what stands around it."""

from __future__ import annotations

import re

_THOUGHTS = re.compile(r"^.*?</think>", re.DOTALL)
_PREAMBLES = (
    re.compile(r"^(?:sure|certainly|of course|absolutely|okay|ok)\b[^.!:]{0,40}[.!,:]\s*", re.IGNORECASE),
    re.compile(r"^here(?:'s| is| are)\b[^:\n]{0,120}:\s*", re.IGNORECASE),
    re.compile(r"^\W{0,2}(?:caption|description|tags|prompt)\W{0,2}:\W{0,2}\s*", re.IGNORECASE),
    re.compile(
        r"^(?:the|this) (?:image|picture|photo|photograph|illustration) "
        r"(?:shows|depicts|features|displays|presents|captures|portrays|is of)\s+",
        re.IGNORECASE,
    ),
)
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("`", "`"))
_SENTENCE_END = re.compile(r"[.!?][\"”')]?(?=\s|$)")


def caption_of(answer: str, *, cut_off: bool, strip_preamble: bool) -> str:
    """The caption in a model's answer.

    Args:
        answer: as it was decoded.
        cut_off: whether it ended because it got too long; what follows the last whole sentence (or tag) is left out.
        strip_preamble: whether "Sure, here is ...:" and "The image shows" in front are left out.
    """
    text = _THOUGHTS.sub("", answer).strip()
    if cut_off:
        text = _whole(text)
    return _without_preamble(text) if strip_preamble else text


def _whole(text: str) -> str:
    """The text up to the end of its last sentence, or else its last comma; all of it where there is neither."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    if ends:
        return text[: ends[-1]]
    return text.rpartition(",")[0] or text


def _without_preamble(text: str) -> str:
    bare = text
    for preamble in _PREAMBLES:
        bare = preamble.sub("", bare, count=1)
    for opening, closing in _QUOTES:
        if len(bare) > 1 and bare.startswith(opening) and bare.endswith(closing):
            bare = bare[1:-1].strip()
    if not bare:
        return text
    return bare[0].upper() + bare[1:] if bare != text and text[0].isupper() and "." in bare else bare
