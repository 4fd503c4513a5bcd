"""From a tagger's probabilities to a caption: which tags, in which order, and how they are written. Never torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trainer.captioners.options import ModelOptions
from trainer.config_base import Probability, setting
from trainer.curation.caption_edits import is_face, plain_tag

Category = Literal["character", "copyright", "general", "style", "meta", "rating"]
"""What a tag is about; captions have them in this order where characters come first."""

_LEAST_CHARACTER_MCUT = 0.15  # as in the taggers' own demo: without a character the largest gap lies among noise


@dataclass(frozen=True)
class Tag:
    """One answer of a tagger.

    Attributes:
        name: as the model's list has it, with underscores.
        series: names of what a character belongs to.
    """

    name: str
    category: Category
    series: tuple[str, ...] = ()


class TaggerOptions(ModelOptions):
    """Which tags are taken, and how they are written."""

    general: bool = setting(True, "General tags", basic=True)
    """What is to be seen: 1girl, red hair, outdoors ..."""
    character: bool = setting(True, "Character names", basic=True)
    """Names of known characters."""
    general_threshold: Probability | None = setting(None, "Threshold for general tags", basic=True, also=("thresh",))
    """Tags that are less sure are left out. Lower: more tags, more of them wrong. Empty: what the model's makers
    advise."""
    character_threshold: Probability | None = setting(None, "Threshold for characters", basic=True)
    """Names that are less sure are left out. Empty: what the model's makers advise."""
    rating: bool = setting(False, "Rating")
    """The likeliest of general, sensitive, questionable and explicit, as the last tag."""
    general_mcut: bool = setting(False, "General tags: cut at the largest gap", also=("mcut",))
    """MCut: instead of a fixed threshold, the middle of the widest gap between neighbouring probabilities, for each
    picture anew."""
    character_mcut: bool = setting(False, "Characters: cut at the largest gap")
    """MCut for character names; never below 0.15."""
    blacklist: str = setting("", "Never these tags", basic=True, also=("undesired_tags", "exclude_tags"))
    """Between commas; a star stands for any letters, as in `*_hair`. Name here what the LoRA shall learn as part of its
    trigger word, such as a character's hair colour."""
    always_first: str = setting("", "Always these tags first", also=("always_first_tags",))
    """Between commas; stand in front of every caption, whatever is to be seen."""
    spaces: bool = setting(True, "Spaces instead of underscores", also=("remove_underscore",))
    """red_hair becomes red hair; faces such as ^_^ stay."""
    escape_brackets: bool = setting(False, "Escape brackets")
    r"""miku \(vocaloid\) instead of miku (vocaloid): where brackets weigh words in captions."""
    order: Literal["probability", "alphabet", "model"] = setting("probability", "Order of tags")
    """The surest first, by the alphabet, or as in the model's own list."""
    character_first: bool = setting(True, "Characters in front", also=("character_tags_first",))
    """Character names (and their series) stand before the general tags."""
    max_tags: int | None = setting(None, "Most tags", ge=1, le=1000)
    """The surest ones are kept; empty for all. Tags that always come first and the rating are not counted."""


def mcut(probabilities: NDArray[np.floating]) -> float:
    """Largeron, Moulin, Géry 2012, "MCut: a thresholding strategy for multi-label classification".

    The middle of the widest gap between neighbouring probabilities; above all of them where there are fewer than two.
    """
    if len(probabilities) < 2:
        return 1.0
    falling = np.sort(probabilities.astype(np.float64))[::-1]
    widest = int(np.argmax(falling[:-1] - falling[1:]))
    return float((falling[widest] + falling[widest + 1]) / 2)


class TagWriter:
    """Writes captions for the probabilities of a list of tags."""

    def __init__(
        self, tags: Sequence[Tag], thresholds: Mapping[Category, float], options: TaggerOptions, *, series: bool = False
    ) -> None:
        """Take the list in the model's order.

        Args:
            thresholds: for each category whose tags are wanted; a rating needs none.
            options: everything else that is chosen.
            series: whether a character's series follow it.
        """
        self._tags = tags
        self._thresholds = thresholds
        self._options = options
        self._series = series
        self._first = _listed(options.always_first)
        self._unwanted = [_pattern(tag) for tag in _listed(options.blacklist)]
        members: dict[Category, list[int]] = {category: [] for category in get_args(Category)}
        for number, tag in enumerate(tags):
            members[tag.category].append(number)
        self._members = {category: np.array(numbers, dtype=np.intp) for category, numbers in members.items()}

    def caption(self, probabilities: NDArray[np.floating]) -> str:
        """The tags between commas, for a probability of each tag in the list."""
        found = [number for category in self._thresholds for number in self._above(category, probabilities)]
        wanted = sorted(
            (number for number in found if self._wanted(self._tags[number].name)),
            key=lambda number: -probabilities[number],
        )
        names = []
        for number in self._ordered(wanted[: self._options.max_tags]):
            tag = self._tags[number]
            names += [tag.name, *filter(self._wanted, tag.series if self._series else ())]
        names += self._rating(probabilities) if self._options.rating else []
        return ", ".join(_unique([*self._first, *map(self._written, names)]))

    def _above(self, category: Category, probabilities: NDArray[np.floating]) -> NDArray[np.intp]:
        members = self._members[category]
        threshold = self._thresholds[category]
        if category == "general" and self._options.general_mcut:
            threshold = mcut(probabilities[members])
        if category == "character" and self._options.character_mcut:
            threshold = max(_LEAST_CHARACTER_MCUT, mcut(probabilities[members]))
        return members[probabilities[members] > threshold]

    def _wanted(self, name: str) -> bool:
        return not any(pattern.fullmatch(plain_tag(name)) for pattern in self._unwanted)

    def _rating(self, probabilities: NDArray[np.floating]) -> list[str]:
        ratings = self._members["rating"]
        return [self._tags[ratings[np.argmax(probabilities[ratings])]].name] if len(ratings) else []

    def _ordered(self, numbers: list[int]) -> list[int]:
        """Numbers that come surest first, as the caption has them."""
        if self._options.order == "alphabet":
            numbers = sorted(numbers, key=lambda number: self._tags[number].name)
        elif self._options.order == "model":
            numbers = sorted(numbers)
        if self._options.character_first:
            places = {category: place for place, category in enumerate(get_args(Category))}
            numbers = sorted(numbers, key=lambda number: places[self._tags[number].category])
        return numbers

    def _written(self, name: str) -> str:
        if self._options.spaces and not is_face(name):
            name = name.replace("_", " ")
        return re.sub(r"([()])", r"\\\1", name) if self._options.escape_brackets else name


def _listed(text: str) -> list[str]:
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def _pattern(tag: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in plain_tag(tag).split("*")))


def _unique(tags: Sequence[str]) -> list[str]:
    first: dict[str, str] = {}
    for tag in tags:
        first.setdefault(plain_tag(tag), tag)
    return list(first.values())
