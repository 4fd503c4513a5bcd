"""What can be done to many captions at once, each operation a model of its options.

The page makes its form of them: labels and docstrings of fields are what it shows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ValidationError

from trainer.config_base import Section, setting
from trainer.config_io import problems_of
from trainer.curation import caption_edits
from trainer.curation.caption_edits import Edit, Place, is_face
from trainer.errors import UserError

Counts = Mapping[str, int]
"""How many captions of the whole dataset hold each tag."""


def tags_in(lines: list[str]) -> list[str]:
    """The tags of a field: between commas, on lines, or both."""
    return [tag.strip() for line in lines for tag in line.split(caption_edits.SEPARATOR) if tag.strip()]


TagList = Annotated[list[str], AfterValidator(tags_in)]


class Operation(Section):
    """One thing that can be done to captions."""

    label: ClassVar[str]
    about: ClassVar[str]

    @abstractmethod
    def title(self) -> str:
        """The edit's name in the list of changes."""

    @abstractmethod
    def edit(self, counts: Counts) -> Edit:
        """The edit with these options. Raises UserError when something is missing."""


class AddTags(Operation):
    """Add tags."""

    label = "Add tags"
    about = "To captions that lack them."

    tags: TagList = setting([], "Tags to add")
    """Between commas, or one a line."""
    place: Place = setting("at the end", "Where")
    """Lines of a caption count as captions of their own."""
    position: int = setting(2, "Position", ge=1, le=1000)
    """For "at a position": 1 is the first."""
    behind: str = setting("", "Behind which tag")
    """For "behind a tag". Captions without it get the new ones at the end."""

    def title(self) -> str:
        return f"add {named(self.tags)}"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.add_tags(self.tags, self.place, position=self.position, behind=self.behind)


class RemoveTags(Operation):
    """Remove tags."""

    label = "Remove tags"
    about = "Also a whole list of unwanted tags."

    tags: TagList = setting([], "Tags to remove", also=("blacklist",))
    """Between commas, or one a line; * stands for any letters: `*_background, monochrome`. Upper case and underscores
    make no difference."""

    def title(self) -> str:
        return f"remove {named(self.tags)}"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.remove_tags(self.tags)


class KeepTags(Operation):
    """Keep only listed tags."""

    label = "Keep only listed tags"
    about = "All others are removed."

    tags: TagList = setting([], "Tags to keep", also=("whitelist",))
    """Between commas, or one a line; * stands for any letters. Upper case and underscores make no difference."""

    def title(self) -> str:
        return f"keep only {named(self.tags)}"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.keep_tags(self.tags)


class RemoveRareTags(Operation):
    """Remove rare tags."""

    label = "Remove rare tags"
    about = "Those that few captions of the whole dataset have."

    fewer_than: int = setting(2, "Seen fewer times than", ge=2, le=100_000)
    """2 removes tags that only one caption has."""

    def title(self) -> str:
        return f"remove tags seen fewer than {self.fewer_than} times"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.remove_rare_tags(counts, self.fewer_than)


class RenameTags(Operation):
    """Rename or merge tags."""

    label = "Rename or merge tags"
    about = "Several become one, at the place of the first."

    tags: TagList = setting([], "Tags to rename")
    """Exactly as they are; between commas, or one a line."""
    new: str = setting("", "New name")
    """A caption that has this tag already keeps it once."""

    def title(self) -> str:
        return f"rename {named(self.tags)} to {self.new.strip()}"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.rename_tags(self.tags, self.new)


class Replace(Operation):
    """Find and replace."""

    label = "Find and replace"
    about = "In the whole text of captions."

    find: str = setting("", "Find")
    """What to look for."""
    replacement: str = setting("", "Replace with")
    r"""Empty removes what is found. Groups of a regular expression: `\1`, `\g<name>`."""
    what: Literal["text", "whole tags", "regular expression"] = setting("text", "Find means")
    """Whole tags: only where a tag is exactly this. A regular expression may begin with flags: `(?s)`."""
    match_case: bool = setting(True, "Match case")

    def title(self) -> str:
        return f"replace {self.find}"

    def edit(self, counts: Counts) -> Edit:
        if self.what == "regular expression":
            return caption_edits.replace_regex(self.find, self.replacement, match_case=self.match_case)
        if self.what == "text":
            return caption_edits.replace_text(self.find, self.replacement, match_case=self.match_case)
        return caption_edits.replace_whole_tags(self.find, self.replacement, match_case=self.match_case)


class TriggerFirst(Operation):
    """Put the trigger word first."""

    label = "Trigger word first"
    about = "Added in front, or moved there from elsewhere in the caption."

    trigger: str = setting("", "Trigger word", also=("activation tag",))
    """A word that the model does not know yet, such as ohwx."""

    def title(self) -> str:
        return f"trigger word {self.trigger.strip()}"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.put_trigger_first(self.trigger)


class MoveTags(Operation):
    """Move tags."""

    label = "Move tags"
    about = "Where captions have them; in the order given."

    tags: TagList = setting([], "Tags to move")
    """Exactly as they are; between commas, or one a line."""
    to: Literal["the front", "the end", "a position"] = setting("the front", "Where to")
    position: int = setting(2, "Position", ge=1, le=1000)
    """For "a position": 1 is the first."""

    def title(self) -> str:
        return f"move {named(self.tags)} to {self.to if self.to != 'a position' else f'position {self.position}'}"

    def edit(self, counts: Counts) -> Edit:
        positions = {"the front": 1, "the end": None, "a position": self.position}
        return caption_edits.move_tags(self.tags, positions[self.to])


class SortTags(Operation):
    """Sort tags."""

    label = "Sort tags"
    about = "Those of each caption."

    order: Literal["A to Z", "most frequent first", "rarest first"] = setting("A to Z", "Order")
    """Frequent in the whole dataset."""
    keep_first: int = setting(0, "Leave the first tags", ge=0, le=1000, also=("keep_tokens",))
    """So many stay where they are, such as 1 for the trigger word."""

    def title(self) -> str:
        return f"sort tags, {self.order}"

    def edit(self, counts: Counts) -> Edit:
        sign = {"A to Z": 0, "most frequent first": -1, "rarest first": 1}[self.order]
        return caption_edits.sort_tags(lambda tag: (sign * counts.get(tag, 0), tag.lower()), keep_first=self.keep_first)


class RemoveDuplicates(Operation):
    """Remove double tags."""

    label = "Remove double tags"
    about = "Of equal tags in a caption, the first stays."

    any_spelling: bool = setting(True, "However they are spelled")
    """Red_Hair and red hair count as the same."""

    def title(self) -> str:
        return "remove double tags"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.remove_duplicate_tags(any_spelling=self.any_spelling)


class Respell(Operation):
    """Upper case and underscores."""

    label = "Lower case, underscores"
    about = "How tags are spelled. Faces such as ^_^ stay."

    letters: Literal["as they are", "lower case"] = setting("as they are", "Letters")
    between: Literal["as it is", "spaces", "underscores"] = setting("spaces", "Between words")
    """Spaces make red hair of red_hair, underscores the other way round."""

    def title(self) -> str:
        parts = ["lower case"] * (self.letters == "lower case") + [self.between] * (self.between != "as it is")
        return f"spell tags with {' and '.join(parts) or 'no change'}"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.respell_tags(self._respelled)

    def _respelled(self, tag: str) -> str:
        if is_face(tag):
            return tag
        tag = tag.lower() if self.letters == "lower case" else tag
        if self.between == "as it is":
            return tag
        return tag.replace("_", " ") if self.between == "spaces" else "_".join(tag.split())


class Around(Operation):
    """Text around captions."""

    label = "Text in front or behind"
    about = "Exactly as typed, spaces included."

    prefix: str = setting("", "In front")
    """Such as `photo of ` with a space at its end."""
    suffix: str = setting("", "Behind")
    """Such as `, film grain`."""

    def title(self) -> str:
        return f"text around captions: {self.prefix}...{self.suffix}"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.around(self.prefix, self.suffix)


class Tidy(Operation):
    """Tidy spaces and commas."""

    label = "Tidy spaces and commas"
    about = "One space between words, one comma and a space between tags, nothing at the ends."

    def title(self) -> str:
        return "tidy spaces and commas"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.tidy()


class JoinLines(Operation):
    """Join lines."""

    label = "Join lines"
    about = "Each line of a caption file is a caption of its own; this makes one of them."

    between: str = setting(", ", "Put between them")
    """Exactly as typed."""

    def title(self) -> str:
        return "join lines"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.join_lines(self.between)


class SplitLines(Operation):
    """Split into lines."""

    label = "Split into lines"
    about = "Each line of a caption file is a caption of its own; training draws one of them."

    at: str = setting("|", "Where this stands")
    """It goes, and a new line begins."""

    def title(self) -> str:
        return f"split into lines at {self.at}"

    def edit(self, counts: Counts) -> Edit:
        return caption_edits.split_lines(self.at)


OPERATIONS: dict[str, type[Operation]] = {
    "replace": Replace,
    "add": AddTags,
    "remove": RemoveTags,
    "rename": RenameTags,
    "trigger": TriggerFirst,
    "move": MoveTags,
    "sort": SortTags,
    "duplicates": RemoveDuplicates,
    "respell": Respell,
    "around": Around,
    "rare": RemoveRareTags,
    "keep": KeepTags,
    "tidy": Tidy,
    "join": JoinLines,
    "split": SplitLines,
}
"""In the order of the page's list."""


def operation(name: str, values: Mapping[str, Any]) -> Operation:
    """The operation with these options, the rest as by default. Raises UserError with a problem per wrong option."""
    if name not in OPERATIONS:
        raise UserError("edit.unknown", "No operation is chosen.", "Choose what to do.", "operation")
    try:
        return OPERATIONS[name].model_validate(dict(values))
    except ValidationError as error:
        raise UserError.many(problems_of(error, dict(values))) from error


def named(tags: Sequence[str]) -> str:
    """Tags in the title of an edit: the first of them, and how many more."""
    return ", ".join(tags[:3]) + (f" and {len(tags) - 3} more" if len(tags) > 3 else "")
