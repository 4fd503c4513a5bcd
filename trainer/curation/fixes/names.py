"""Fixes that give files another place, name or encoding; nothing of a picture's own bytes changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from trainer.curation.doctor.pictures import ENDINGS, plain_name
from trainer.curation.fixes.companions import companions, free_name, shares_stem
from trainer.curation.fixes.texts import caption_file
from trainer.curation.mask_files import mask_name
from trainer.curation.steps import Change, Move, Step, new_file, put_in_place, set_aside
from trainer.data.caption_files import caption_path, read_caption, read_caption_file
from trainer.data.image_files import is_picture_file, open_picture
from trainer.data.own_captions import CAPTION_ENDINGS
from trainer.files import write_bytes


def set_file_aside(folder: Path, name: str) -> Iterator[Step]:
    """Take a file out of the dataset; a picture with its captions and its mask."""
    along = [old for old, _ in companions(folder, name)] if is_picture_file(Path(name)) else []
    yield from set_aside([name, *along])


def rename_ending(folder: Path, name: str) -> Iterator[Step]:
    """Give a picture the ending that says what it is. Raises one of PICTURE_ERRORS."""
    with open_picture(folder / name) as image:
        ending = ENDINGS.get(str(image.format), (Path(name).suffix,))[0]
    yield from _rename(folder, name, str(PurePosixPath(name).with_suffix(ending)))


def rename_plain(folder: Path, name: str) -> Iterator[Step]:
    """Give a picture a name that no program trips over."""
    path = PurePosixPath(name)
    yield from _rename(folder, name, str(path.with_name(plain_name(path.name))))


def separate(folder: Path, name: str) -> Iterator[Step]:
    """Give a picture that shares its stem with others a stem of its own, and copies of the caption and mask.

    The first of them by name keeps the stem.
    """
    path = folder / name
    sharing = sorted(each.name for each in path.parent.glob("*") if each.stem == path.stem and is_picture_file(each))
    if len(sharing) < 2 or sharing[0] == path.name:
        return
    goal = free_name(folder, str(PurePosixPath(name).with_stem(f"{path.stem}_{path.suffix[1:].lower()}")))
    yield Move(name, goal)
    for ending in CAPTION_ENDINGS:
        text = read_caption(caption_path(path, ending))
        if text is not None:
            yield Change(str(PurePosixPath(goal).with_suffix(ending)), None, text)
    mask = folder / mask_name(name)
    if mask.is_file():
        target = mask_name(goal)
        written = new_file(folder, target)
        write_bytes(written, mask.read_bytes())
        yield put_in_place(folder, target, written)


def to_utf8(folder: Path, name: str) -> Iterator[Step]:
    """Store a picture's caption file as plain UTF-8; the old one goes aside, so that Undo brings its bytes back."""
    path = caption_file(folder, name)
    content = read_caption_file(path) if path is not None else None
    if path is None or content is None or content.encoding == "utf-8":
        return
    caption = path.relative_to(folder).as_posix()
    written = new_file(folder, caption)
    write_bytes(written, content.to_bytes())
    yield put_in_place(folder, caption, written)


def _rename(folder: Path, name: str, wanted: str) -> Iterator[Step]:
    """Give a picture another name, its captions and mask too; with a number where the name is taken."""
    if wanted == name:
        return
    same_stem = PurePosixPath(wanted).with_suffix("") == PurePosixPath(name).with_suffix("")
    free = not (folder / wanted).exists() and (same_stem or not shares_stem(folder, wanted))
    goal = wanted if free else free_name(folder, wanted)
    yield Move(name, goal)
    yield from (Move(old, new) for old, new in companions(folder, name, target=goal) if old != new)
