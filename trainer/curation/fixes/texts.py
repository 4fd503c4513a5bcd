"""Fixes of captions' texts: they touch nothing but caption files, and are quick enough to be made at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer.curation.caption_edits import Edit, put_trigger_first, remove_exactly, rename_tags
from trainer.curation.steps import Change
from trainer.data.caption_files import caption_path, read_caption
from trainer.data.own_captions import CAPTION_ENDINGS


def text_edit(fix: str, values: Mapping[str, str]) -> Edit | None:
    """The edit of captions that a fix consists of; None for fixes of another kind. Raises UserError for blank words."""
    if fix == "add_trigger":
        return put_trigger_first(values.get("trigger", ""))
    if fix == "remove_tag":
        return remove_exactly([values.get("tag", "")])
    if fix == "merge_tag":
        return rename_tags([values.get("tag", "")], values.get("usual", ""))
    return None


def text_steps(folder: Path, names: Iterable[str], edit: Edit) -> list[Change]:
    """What an edit changes in the caption files of these pictures; a file that several share is changed once."""
    changes: dict[str, Change] = {}
    for name in names:
        file = caption_file(folder, name)
        before = read_caption(file) if file is not None else None
        if file is not None and before is not None and edit(before) != before:
            caption = file.relative_to(folder).as_posix()
            changes[caption] = Change(caption, before, edit(before))
    return list(changes.values())


def caption_file(folder: Path, name: str) -> Path | None:
    """The caption file of a picture that training reads; None where there is none."""
    files = (caption_path(folder / name, ending) for ending in CAPTION_ENDINGS)
    return next((file for file in files if file.is_file()), None)
