"""A captioner's text as it is written: phrases taken out, words replaced, cut to length, and the words around it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Literal

from pydantic import field_validator

from trainer.config_base import Section, setting
from trainer.curation.caption_edits import SEPARATOR, append, prepend, put_trigger_first, tags_of
from trainer.data.picture_notes import about_tokens

Unit = Literal["words", "tokens", "sentences"]
Dot = Literal["as it is", "never", "always"]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_PAIR = "="


class Wording(Section):
    """What becomes of a captioner's text. A text of several lines is treated line by line."""

    trigger: str = setting("", "Trigger word", basic=True)
    """Put first in every caption, unless the text names it already. A prompt can hold it as {trigger}."""
    prefix: str = setting("", "Text in front", basic=True)
    """Such as "a drawing of"."""
    suffix: str = setting("", "Text behind", basic=True)
    """Such as ", oil painting"."""
    remove: list[str] = setting([], "Phrases to take out")
    """One a line, such as: The image shows"""
    replace: list[str] = setting([], "Words to replace")
    """One pair a line, such as: woman = ohwx"""
    longest: int | None = setting(None, "Longest text", ge=1)
    """Longer ones end at the last sentence that fits, or else at the last comma. The trigger word and the texts in
    front and behind are not counted. Empty for no limit."""
    unit: Unit = setting("words", "Length counted in")
    """Tokens are estimated; 75 are what SD 1.5 and SDXL read at a time."""
    dot: Dot = setting("as it is", "Full stop at the end")
    """Whether the text itself, without what is put behind it, ends with one."""
    lower: bool = setting(False, "Lower case")
    """Write the text, though not the words around it, without capitals."""
    keep_lines: bool = setting(False, "Keep line breaks")
    """In a caption file each line is a caption of its own, so a text of several paragraphs becomes one line."""

    @field_validator("replace")
    @classmethod
    def _pairs(cls, pairs: list[str]) -> list[str]:
        for pair in pairs:
            if not pair.partition(_PAIR)[0].strip() or _PAIR not in pair:
                raise ValueError(f"{pair!r} is not a pair such as `woman = ohwx`")
        return pairs

    def caption(self, text: str) -> str:
        """The caption for a captioner's text; empty when nothing is left of it and nothing is put around it."""
        if not self.keep_lines:
            text = " ".join(text.split())
        text = "\n".join(self._line(line) for line in text.strip().split("\n"))
        if self.prefix.strip():
            text = prepend(f"{self.prefix.strip()} ")(text)
        if self.suffix.strip():
            joint = "" if self.suffix.lstrip().startswith((",", ".")) else " "
            text = append(joint + self.suffix.strip())(text)
        return "\n".join(self._with_trigger(line) for line in text.split("\n")) if self.trigger.strip() else text

    def _line(self, line: str) -> str:
        for phrase in self.remove:
            line = _taken_out(phrase.strip(), line)
        for pair in self.replace:
            old, _, new = pair.partition(_PAIR)
            line = new.strip().join(_whole_words(old.strip()).split(line))
        line = cut(line.strip(), self.longest, self.unit) if self.longest is not None else line.strip()
        if self.lower:
            line = line.lower()
        if self.dot == "never":
            return line.rstrip(". ")
        return f"{line}." if self.dot == "always" and line and line[-1] not in ".!?" else line

    def _with_trigger(self, line: str) -> str:
        trigger = self.trigger.strip()
        named_inside = trigger not in tags_of(line) and _whole_words(trigger).search(line)
        return line if named_inside else put_trigger_first(trigger)(line)


def cut(text: str, longest: int, unit: Unit) -> str:
    """The text as far as its last whole sentence that fits; of a first sentence too long, whole parts or words.

    Args:
        text: one line.
        longest: in ``unit``.
        unit: words between blanks, tokens of CLIP as estimated, or sentences.
    """
    if _length(text, unit) <= longest:
        return text
    kept = _fitting(_SENTENCE_END.split(text), " ", longest, unit)
    kept = kept or _fitting(text.split(SEPARATOR), SEPARATOR, longest, unit)
    return kept or _fitting(text.split(), " ", longest, unit)


def joined(old: str, new: str, *, in_front: bool, new_line: bool) -> str:
    """A caption with another one added.

    With ``new_line`` as a line of its own; else to each line that is not blank, its tags between commas and without
    those that the line has already.
    """
    if not old.strip() or not new.strip():
        return old if old.strip() else new
    if new_line:
        has = set(old.split("\n"))
        lines = [line for line in new.split("\n") if line not in has]
        return "\n".join([*lines, old.strip("\n")] if in_front else [old.strip("\n"), *lines])
    added = " ".join(new.split("\n"))
    return "\n".join(_tags_joined(line, added, in_front) if line.strip() else line for line in old.split("\n"))


def unique_lines(texts: Iterable[str]) -> str:
    """Texts as the lines of one caption, equal ones once."""
    return "\n".join(dict.fromkeys(text for text in texts if text.strip()))


def _tags_joined(line: str, new: str, in_front: bool) -> str:
    has = set(tags_of(line))
    added = f"{SEPARATOR} ".join(dict.fromkeys(tag for tag in tags_of(new) if tag not in has))
    if not added:
        return line
    first, second = (added, line.strip()) if in_front else (line.strip(), added)
    return f"{first} {second}" if first[-1] in ".!?" else f"{first.rstrip(f'{SEPARATOR} ')}{SEPARATOR} {second}"


def _taken_out(phrase: str, line: str) -> str:
    """The line without the phrase; what then begins it gets the capital that was there."""
    if not phrase:
        return line
    rest = re.sub(r"\s+([,.!?])", r"\1", " ".join(_whole_words(phrase).sub("", line).split())).lstrip(",.!? ")
    begins = re.match(rf"\s*{re.escape(phrase)}", line, re.IGNORECASE)
    return rest[:1].upper() + rest[1:] if begins and line.strip()[:1].isupper() else rest


def _whole_words(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", re.IGNORECASE)


def _length(text: str, unit: Unit) -> int:
    count: dict[Unit, Callable[[str], int]] = {
        "words": lambda text: len(text.split()),
        "tokens": about_tokens,
        "sentences": lambda text: len(_SENTENCE_END.split(text)),
    }
    return count[unit](text)


def _fitting(parts: list[str], joint: str, longest: int, unit: Unit) -> str:
    """The first parts that together are short enough."""
    texts = (joint.join(parts[:number]).strip() for number in range(1, len(parts) + 1))
    fitting = list(takewhile(lambda text: _length(text, unit) <= longest, texts))
    return fitting[-1] if fitting else ""
