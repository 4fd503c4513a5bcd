"""Findings about captions: missing, alike, too long, stored oddly, unlike the others. Pictures are not opened."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config import DatasetSettings
from trainer.curation.caption_edits import tags_of
from trainer.curation.doctor.report import Findings, named
from trainer.curation.doctor.tags import odd_spellings
from trainer.data.caption_files import caption_path, read_caption_file
from trainer.data.caption_tables import read_caption_tables
from trainer.data.folders import folder_says, picture_files
from trainer.data.own_captions import CAPTION_ENDINGS
from trainer.data.token_count import clip_counter

_SHOWN_CAPTION = 80
_NEARLY_ALL = 0.8
_LEAST_CAPTIONS = 5
_SENTENCE_WORDS = 7
_MINORITY = 0.2
_STYLES = {"tags": "a list of tags", "prose": "sentences"}
_PLAIN_STARTS = frozenset(
    {"a", "an", "the", "this", "that", "there", "these", "in", "on", "at", "with", "one", "two", "some", "photo"}
    | {"picture", "image", "painting", "drawing", "illustration", "portrait", "1girl", "1boy", "solo"}
)
"""What captions begin with that is no trigger word."""


@dataclass(frozen=True)
class Captioned:
    """A picture and its caption as training sees it.

    Attributes:
        path: the picture.
        text: every line; empty where there is none.
        given: whether a file, a table or the folder's name gives a caption.
        file: the caption file; None where there is none.
        encoding: of that file; plain UTF-8 where there is none.
    """

    path: Path
    text: str
    given: bool
    file: Path | None = None
    encoding: str = "utf-8"


def read_captions(folder: Path) -> list[Captioned]:
    """All pictures of the folder that are trained on, with their captions. Raises OSError."""
    tables = read_caption_tables(folder)
    found = []
    for path in picture_files(folder):
        repeats, class_prompt = folder_says(path.relative_to(folder))
        if repeats:
            found.append(_captioned(path, tables.captions.get(path, class_prompt)))
    return found


def _captioned(path: Path, otherwise: str | None) -> Captioned:
    for ending in CAPTION_ENDINGS:
        file = caption_path(path, ending)
        content = read_caption_file(file)
        if content is not None:
            return Captioned(path, content.text, True, file, content.encoding)
    return Captioned(path, otherwise or "", otherwise is not None)


def caption_findings(pictures: Sequence[Captioned], broken: Collection[Path], found: Findings) -> None:
    """All findings about captions; pictures that cannot be used count only as owners of their caption files."""
    usable = [picture for picture in pictures if picture.path not in broken]
    for picture in usable:
        _single(picture, found)
    _identical(usable, found)
    _shared_files(pictures, found)
    _lonely_files([picture.path for picture in pictures], found)
    written = [picture for picture in usable if picture.text.strip()]
    _mixed_styles(written, found)
    _missing_trigger(written, found)
    odd_spellings({picture.path: tags_of(picture.text) for picture in written}, found)


def _single(picture: Captioned, found: Findings) -> None:
    if not picture.given:
        hint = "Write one, or have a captioner write it."
        found.add("caption.missing", "warning", [picture.path], "No caption.", hint)
    elif not picture.text.strip():
        found.add("caption.empty", "warning", [picture.path], "The caption is empty.", "Write one.")
    read = DatasetSettings().captions.max_token_length
    if any(clip_counter().count(line, ()).tokens > read for line in picture.text.split("\n") if len(line) > read):
        message = f"The caption is longer than the {read} tokens that are read."
        found.add("caption.long", "info", [picture.path], message, "Shorten it, or set the caption length to 150.")
    if picture.encoding != "utf-8":
        message = f"The caption file is stored as {picture.encoding}, not as plain UTF-8."
        found.add("caption.encoding", "info", [picture.path], message, "Other programs may read it wrongly.")


def _identical(pictures: Sequence[Captioned], found: Findings) -> None:
    by_caption: dict[str, list[Path]] = defaultdict(list)
    for picture in pictures:
        by_caption[picture.text.strip()].append(picture.path)
    for caption, paths in by_caption.items():
        if caption and len(paths) > 1:
            shown = caption if len(caption) <= _SHOWN_CAPTION else f"{caption[:_SHOWN_CAPTION]}..."
            message = f"{len(paths)} pictures have the same caption: {shown}"
            found.add("caption.identical", "info", paths, message, "Say what differs, unless it is meant so.")


def _shared_files(pictures: Sequence[Captioned], found: Findings) -> None:
    by_stem: dict[Path, list[Path]] = defaultdict(list)
    for picture in pictures:
        by_stem[picture.path.with_suffix("")].append(picture.path)
    for stem, paths in by_stem.items():
        if len(paths) > 1:
            message = f"{named(paths)} share the caption file {stem.name}{CAPTION_ENDINGS[0]}."
            found.add("caption.shared", "warning", paths, message, "Rename one of the pictures.")


def _lonely_files(pictures: Sequence[Path], found: Findings) -> None:
    stems = {path.with_suffix("") for path in pictures}
    for parent in sorted({path.parent for path in pictures}):
        files = sorted(path for ending in CAPTION_ENDINGS for path in parent.glob(f"*{ending}"))
        lonely = [path for path in files if path.with_suffix("") not in stems and not path.name.startswith(".")]
        if lonely:
            found.add("caption.no_picture", "info", lonely, "Caption without a picture.", "Check the file's name.")


def _mixed_styles(pictures: Sequence[Captioned], found: Findings) -> None:
    """Sentences among tags, or tags among sentences: the few that are unlike the many."""
    by_style: dict[str, list[Path]] = defaultdict(list)
    for picture in pictures:
        style = _style(picture.text)
        if style:
            by_style[style].append(picture.path)
    if len(by_style) < 2:
        return
    few, many = sorted(by_style, key=lambda style: len(by_style[style]))
    if len(by_style[many]) >= _LEAST_CAPTIONS and len(by_style[few]) <= _MINORITY * len(pictures):
        message = f"The caption is {_STYLES[few]}, where most are {_STYLES[many]}."
        hint = "Prompts work best in the style that was trained: use one for all."
        found.add("caption.mixed_style", "info", by_style[few], message, hint)


def _style(caption: str) -> str:
    """``prose`` or ``tags``; empty where one cannot tell."""
    tags = tags_of(caption)
    longest = max(len(tag.split()) for tag in tags)
    if longest >= _SENTENCE_WORDS:
        return "prose"
    return "tags" if len(tags) >= 3 and longest <= 4 else ""


def _missing_trigger(pictures: Sequence[Captioned], found: Findings) -> None:
    """A word that nearly all captions begin with, and which some do not have at all."""
    starts = Counter(start for picture in pictures for start in set(_starts(picture.text)))
    if len(pictures) < _LEAST_CAPTIONS or not starts:
        return
    trigger, count = max(starts.items(), key=lambda item: (item[1], len(item[0])))
    word = re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)", re.IGNORECASE)
    missing = [picture.path for picture in pictures if not word.search(picture.text)]
    if missing and count >= _NEARLY_ALL * len(pictures):
        message = f"{trigger!r}, with which nearly all captions begin, is missing."
        hint = "If it is the trigger word, put it into all captions."
        found.add("caption.trigger_missing", "info", missing, message, hint, values={"trigger": trigger})


def _starts(caption: str) -> list[str]:
    """What a caption begins with: its first tag where that is short, and its first word."""
    tags = tags_of(caption)
    first = tags[0]
    starts = [first.split()[0], *([first] if len(first.split()) <= 3 else [])]
    return [start for start in starts if start.lower().split()[0] not in _PLAIN_STARTS]
