"""Changes to many captions at once: pure functions from text to text.

A caption may have several lines, each a caption of its own; tag edits work on every line that is not blank.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

import regex

from trainer.errors import UserError

Edit = Callable[[str], str]

SEPARATOR = ","
REGEX_SECONDS = 2.0
"""Of processor time, for all captions of an edit together: some expressions need years for one caption."""


def tags_of(caption: str) -> list[str]:
    """The comma-separated tags of all lines, in order, blanks left out."""
    return [tag for line in caption.split("\n") for tag in _split(line)]


def count_tags(captions: Iterable[str]) -> list[tuple[str, int]]:
    """How many captions hold each tag, most frequent first, then by name."""
    counts = Counter(tag for caption in captions for tag in set(tags_of(caption)))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def is_face(tag: str) -> bool:
    """Whether a tag draws a face (^_^, 0_0, >_o): no two letters or digits of it are neighbours."""
    return "_" in tag and not re.search(r"[^\W_]{2}", tag)


def plain_tag(tag: str) -> str:
    """A tag as it is compared where spelling does not count: ``Red_Hair`` and ``red hair`` are the same."""
    return tag.lower().replace("\\", "").replace("_", " ")


def tag_patterns(tags: Iterable[str]) -> Callable[[str], bool]:
    """Whether a tag is one of these, spelling aside; ``*`` stands for any letters."""
    patterns = [".*".join(re.escape(part) for part in plain_tag(tag).split("*")) for tag in tags]
    found = re.compile("|".join(patterns) if patterns else r"(?!)", re.DOTALL)
    return lambda tag: found.fullmatch(plain_tag(tag)) is not None


def replace_text(find: str, replacement: str, *, match_case: bool = True) -> Edit:
    """Replace every ``find``. Raises UserError for an empty search."""
    pattern = re.compile(re.escape(_given_text(find)), 0 if match_case else re.IGNORECASE)
    return lambda caption: pattern.sub(lambda _: replacement, caption)


def replace_regex(find: str, replacement: str, *, match_case: bool = True) -> Edit:
    """Replace what a regular expression finds; ``\\1`` or ``\\g<name>`` in the replacement is one of its groups.

    ``^`` and ``$`` are the ends of a line. Raises UserError for an empty search or an expression that is not one, and
    while editing when the captions together need more than ``REGEX_SECONDS``.
    """
    flags = regex.MULTILINE | (0 if match_case else regex.IGNORECASE)
    try:
        pattern = regex.compile(_given_text(find), flags)
        _check_groups(pattern, replacement)
    except (regex.error, IndexError) as error:
        raise UserError(
            "edit.regex",
            f"{find!r} with {replacement!r} is not a regular expression: {error}.",
            "Correct it, or look for plain text.",
            "find",
        ) from error
    left = REGEX_SECONDS

    def edit(caption: str) -> str:
        nonlocal left
        started = time.thread_time()
        try:
            changed: str = pattern.sub(replacement, caption, timeout=max(left, 0.001))
        except TimeoutError as error:
            message = f"{find!r} takes too long: on some captions it would need minutes or more."
            hint = "Make it simpler; a repetition within a repetition such as (a+)+ is the usual cause."
            raise UserError("edit.regex_slow", message, hint, "find") from error
        left -= time.thread_time() - started
        return changed

    return edit


def _check_groups(pattern: regex.Pattern[str], replacement: str) -> None:
    """Raise when the replacement names a group that is not there; else only a caption that matches would tell."""
    names = {number: name for name, number in pattern.groupindex.items()}
    groups = (f"(?P<{names[number]}>)" if number in names else "()" for number in range(1, pattern.groups + 1))
    regex.compile("".join(groups)).sub(replacement, "")


def replace_whole_tags(find: str, replacement: str, *, match_case: bool = True) -> Edit:
    """Replace tags that are exactly ``find``; by nothing removes them. Raises UserError for an empty search."""
    wanted = _given_text(find.strip())
    new = _split(replacement)

    def edit(tags: list[str]) -> list[str]:
        is_it = [tag == wanted or (not match_case and tag.lower() == wanted.lower()) for tag in tags]
        if not any(is_it):
            return tags
        return [put for tag, found in zip(tags, is_it, strict=True) for put in (new if found else [tag])]

    return _per_line(edit)


def rename_tags(tags: Collection[str], new: str) -> Edit:
    """Give tags another name; several become one, at the place of the first. Raises UserError for a blank name."""
    new = _given(new)
    old = set(_given_tags(tags))

    def edit(present: list[str]) -> list[str]:
        if not old.intersection(present):
            return present
        return list(dict.fromkeys(new if tag in old else tag for tag in present))

    return _per_line(edit)


Place = Literal["in front", "at the end", "at a position", "behind a tag"]


def add_tags(tags: Sequence[str], place: Place = "at the end", *, position: int = 1, behind: str = "") -> Edit:
    """Add tags to lines that lack them, and to captions that are empty.

    Args:
        position: for "at a position", from 1; lines with fewer tags get them at the end.
        behind: for "behind a tag"; lines without it get them at the end.

    Raises UserError when no tag is given.
    """
    tags = _given_tags(tags)
    behind = _given(behind) if place == "behind a tag" else ""

    def edit(present: list[str]) -> list[str]:
        new = [tag for tag in tags if tag not in present]
        at = {"in front": 0, "at the end": len(present), "at a position": position - 1}.get(place)
        if at is None:
            at = present.index(behind) + 1 if behind in present else len(present)
        return [*present[:at], *new, *present[at:]]

    return _per_line(edit, also_empty=True)


def remove_tags(tags: Collection[str]) -> Edit:
    """Remove tags wherever they stand; see ``tag_patterns``. Raises UserError when none is given."""
    unwanted = tag_patterns(_given_tags(tags))
    return _per_line(lambda present: [tag for tag in present if not unwanted(tag)])


def remove_exactly(tags: Collection[str]) -> Edit:
    """Remove tags that are spelled exactly like these. Raises UserError when none is given."""
    unwanted = set(_given_tags(tags))
    return _per_line(lambda present: [tag for tag in present if tag not in unwanted])


def keep_tags(tags: Collection[str]) -> Edit:
    """Remove all but these tags; see ``tag_patterns``. Raises UserError when none is given."""
    wanted = tag_patterns(_given_tags(tags))
    return _per_line(lambda present: [tag for tag in present if wanted(tag)])


def remove_rare_tags(counts: Mapping[str, int], fewer_than: int) -> Edit:
    """Remove tags that ``counts`` has fewer than so many times."""
    return _per_line(lambda tags: [tag for tag in tags if counts.get(tag, 0) >= fewer_than])


def move_tags(tags: Sequence[str], position: int | None) -> Edit:
    """Move tags, where a line has them, to a position from 1, or to the end for None; in the order given.

    Raises UserError when no tag is given.
    """
    tags = _given_tags(tags)

    def edit(present: list[str]) -> list[str]:
        moved = [tag for tag in tags if tag in present]
        others = [tag for tag in present if tag not in moved]
        at = len(others) if position is None else position - 1
        return [*others[:at], *moved, *others[at:]]

    return _per_line(edit)


def put_trigger_first(trigger: str) -> Edit:
    """Put the trigger word in front of every line, moving it there where a line has it elsewhere as a tag of its own.

    Raises UserError for a blank word.
    """
    trigger = _given(trigger)
    return _per_line(lambda tags: [trigger, *(tag for tag in tags if tag != trigger)], also_empty=True)


def remove_duplicate_tags(*, any_spelling: bool = False) -> Edit:
    """Keep only the first of equal tags in a line; with ``any_spelling``, of those that ``plain_tag`` makes equal."""

    def edit(tags: list[str]) -> list[str]:
        first: dict[str, str] = {}
        for tag in tags:
            first.setdefault(plain_tag(tag) if any_spelling else tag, tag)
        return list(first.values())

    return _per_line(edit)


def sort_tags(key: Callable[[str], tuple[float, str]], *, keep_first: int = 0) -> Edit:
    """Sort each line's tags, but for the first ``keep_first``."""
    return _per_line(lambda tags: [*tags[:keep_first], *sorted(tags[keep_first:], key=key)])


def respell_tags(respell: Callable[[str], str]) -> Edit:
    """Spell each tag anew."""
    return _per_line(lambda tags: [respell(tag) for tag in tags])


def tidy() -> Edit:
    """One space between words, one comma and a space between tags; no spaces, commas or blank lines at the ends."""

    def edit(caption: str) -> str:
        lines = (f"{SEPARATOR} ".join(" ".join(tag.split()) for tag in _split(line)) for line in caption.split("\n"))
        return "\n".join(lines).strip("\n")

    return edit


def join_lines(between: str) -> Edit:
    """Make one line of all that are not blank."""
    return lambda caption: between.join(line.strip() for line in caption.split("\n") if line.strip())


def split_lines(at: str) -> Edit:
    """Begin a new line wherever a text stands, which goes; each line is a caption of its own.

    Raises UserError when no text is given.
    """
    _given_text(at)

    def edit(caption: str) -> str:
        if at not in caption:
            return caption
        return "\n".join(part.strip() for part in caption.replace(at, "\n").split("\n") if part.strip())

    return edit


def prepend(text: str) -> Edit:
    """Put text in front of every line that is not blank, exactly as given."""
    return around(text, "")


def append(text: str) -> Edit:
    """Put text behind every line that is not blank, exactly as given."""
    return around("", text)


def around(before: str, after: str) -> Edit:
    """Put text in front of and behind every line that is not blank, exactly as given."""

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


def _given_tags(tags: Iterable[str]) -> list[str]:
    given = [tag for tag in map(str.strip, tags) if tag]
    if not given:
        raise UserError("edit.no_tag", "No tag is given.", "Fill in one or several, between commas.", "tags")
    return given


def _given_text(text: str) -> str:
    if not text:
        raise UserError("edit.nothing_to_find", "There is nothing to find.", "Fill in the text to look for.", "find")
    return text
