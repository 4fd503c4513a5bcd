"""Changes to many captions at once: pure functions from text to text, and what they would change.

A caption may have several lines, each a caption of its own; tag edits work on every line that is not blank.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from trainer.curation.steps import Change
from trainer.errors import UserError

Edit = Callable[[str], str]

SEPARATOR = ","


def changes_of(captions: Mapping[str, str | None], edit: Edit) -> list[Change]:
    """What ``edit`` would change; pictures without a caption count as empty ones."""
    changed = ((name, before, edit(before or "")) for name, before in captions.items())
    return [Change(name, before, after) for name, before, after in changed if after != (before or "")]


def tags_of(caption: str) -> list[str]:
    """The comma-separated tags of all lines, in order, blanks left out."""
    return [tag for line in caption.split("\n") for tag in _split(line)]


def count_tags(captions: Iterable[str]) -> list[tuple[str, int]]:
    """How many captions hold each tag, most frequent first, then by name."""
    counts = Counter(tag for caption in captions for tag in set(tags_of(caption)))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def replace_text(find: str, replacement: str, *, regex: bool = False, match_case: bool = True) -> Edit:
    """Replace every ``find``. As a regular expression, ``\\1`` in the replacement is the first group.

    Raises UserError for an empty search or an expression that is not one.
    """
    if not find:
        raise UserError("edit.nothing_to_find", "There is nothing to find.", "Fill in the text to look for.", "find")
    flags = 0 if match_case else re.IGNORECASE
    try:
        pattern = re.compile(find if regex else re.escape(find), flags | (re.MULTILINE if regex else 0))
        if regex:
            pattern.sub(replacement, "")  # has the replacement's groups checked, whatever the text
    except (re.error, IndexError) as error:
        raise UserError(
            "edit.regex",
            f"{find!r} with {replacement!r} is not a regular expression: {error}.",
            "Correct it, or switch the regular expression off.",
            "find",
        ) from error
    return lambda caption: pattern.sub(replacement if regex else lambda _: replacement, caption)


def add_tag(tag: str, *, first: bool = False) -> Edit:
    """Add a tag to lines that lack it, behind the others or in front. Raises UserError for a blank tag."""
    tag = _given(tag)

    def edit(tags: list[str]) -> list[str]:
        if tag in tags:
            return tags
        return [tag, *tags] if first else [*tags, tag]

    return _per_line(edit, also_empty=True)


def remove_tag(tag: str) -> Edit:
    """Remove a tag wherever it stands. Raises UserError for a blank tag."""
    tag = _given(tag)
    return _per_line(lambda tags: [other for other in tags if other != tag])


def put_trigger_first(trigger: str) -> Edit:
    """Put the trigger word in front of every line, moving it there where a line has it elsewhere as a tag of its own.

    Raises UserError for a blank word.
    """
    trigger = _given(trigger)
    return _per_line(lambda tags: [trigger, *(tag for tag in tags if tag != trigger)], also_empty=True)


def remove_duplicate_tags() -> Edit:
    """Keep only the first of equal tags in a line."""
    return _per_line(lambda tags: list(dict.fromkeys(tags)))


def prepend(text: str) -> Edit:
    """Put text in front of every line that is not blank, exactly as given."""
    return _around(text, "")


def append(text: str) -> Edit:
    """Put text behind every line that is not blank, exactly as given."""
    return _around("", text)


def _around(before: str, after: str) -> Edit:
    def edit(caption: str) -> str:
        if not caption.strip():
            return (before + after).strip()
        return "\n".join(before + line + after if line.strip() else line for line in caption.split("\n"))

    return edit


def _per_line(edit: Callable[[list[str]], list[str]], *, also_empty: bool = False) -> Edit:
    """Apply a change of tags to each line; a line whose tags stay the same keeps its spacing too."""

    def edit_line(line: str) -> str:
        tags = _split(line)
        changed = edit(tags)
        return line if changed == tags else f"{SEPARATOR} ".join(changed)

    def edit_caption(caption: str) -> str:
        if not caption.strip():
            return edit_line("") if also_empty else caption
        return "\n".join(edit_line(line) if line.strip() else line for line in caption.split("\n"))

    return edit_caption


def _split(line: str) -> list[str]:
    return [tag for part in line.split(SEPARATOR) if (tag := part.strip())]


def _given(tag: str) -> str:
    if not tag.strip():
        raise UserError("edit.no_tag", "No word is given.", "Fill in the word.", "tag")
    return tag.strip()
