"""Splitting validation pictures off a dataset, and bringing them back: as an edit that can be undone.

They go into a hidden folder of the dataset, with their folders and captions: training never looks there, nothing is
copied, and the way back is one step. The folder is one that ``validation.path`` of a config may name.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainer.curation import similar
from trainer.curation.edit_log import EditLog, Outcome
from trainer.curation.picture_sets import count_of, own_caption_bytes, path_within, read_set
from trainer.curation.steps import Change, Move, Step
from trainer.data.caption_files import decode
from trainer.data.folders import Picture, picture_files
from trainer.data.image_files import PICTURE_ERRORS, read_preview
from trainer.data.own_captions import CAPTION_ENDINGS
from trainer.errors import UserError
from trainer.runs.events import EventSink

VALIDATION = ".validation"
"""Hidden, as training and the page leave out what begins with a dot; its name tells people what it is."""
_PREVIEW_PX = 64
_WORKERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Split:
    """What was moved: pictures that are validated on now, and those left to train on.

    ``together``: groups of pictures that look alike or have the same caption, and were kept on one side.
    """

    validation: Path
    moved: int
    left: int
    together: int
    outcome: Outcome


def validation_folder(folder: Path) -> Path | None:
    """The folder with the dataset's validation pictures; None where none are split off."""
    place = folder / VALIDATION
    return place if place.is_dir() and picture_files(place) else None


def split_off(
    folder: Path, *, share: float | None, count: int | None, seed: int, log: EditLog, events: EventSink
) -> Split:
    """Move a share or a number of pictures, with their captions, to the dataset's validation folder.

    Which ones depends on the seed and the pictures' names only. Every subfolder gives its part; pictures that look
    alike, and those with the same caption, stay together, or the validation would know what was trained on.

    Raises:
        UserError: wrong numbers, no such folder, pictures split off already, or all pictures alike.
    """
    if (there := validation_folder(folder)) is not None:
        message = f"{count_of(len(picture_files(there)), 'picture')} of {folder.name} are split off already."
        raise UserError("split.exists", message, "Bring them back first.", "folder")
    pictures = read_set(folder).pictures
    if not pictures[0].path.is_relative_to(folder):
        message = f"{folder.name} is a data set of the datasets library, not a folder of picture files."
        raise UserError("split.library", message, "Import it first.", "folder")
    wanted = _wanted(len(pictures), share, count)
    groups = _groups(pictures, events)
    chosen = choose(groups, wanted, seed)
    if not chosen:
        message = "The pictures are too much alike: what is split off would be trained on too."
        raise UserError("split.alike", message, "Add other pictures, or choose a validation folder yourself.", "share")
    steps = {step.name: step for group in chosen for picture in group for step in _steps(picture)}
    outcome = log.apply(f"split off {count_of(sum(map(len, chosen)), 'validation picture')}", steps.values())
    moved = sum(map(len, chosen))
    together = sum(len(group) > 1 for group in groups)
    return Split(folder / VALIDATION, moved, len(pictures) - moved, together, outcome)


def bring_back(folder: Path, log: EditLog) -> Outcome:
    """Move the validation pictures and their captions back to where they were. Raises UserError when there are none."""
    place = validation_folder(folder)
    if place is None:
        raise UserError("split.none", f"No pictures of {folder.name} are split off.", "Split some off first.", "folder")
    files = sorted(path for path in place.rglob("*") if path.is_file())
    inside = [path.relative_to(folder).as_posix() for path in files]
    return log.apply(
        "bring validation pictures back", [Move(name, name.removeprefix(f"{VALIDATION}/")) for name in inside]
    )


def choose(groups: list[list[Picture]], wanted: int, seed: int) -> list[list[Picture]]:
    """Whole groups of about ``wanted`` pictures in all, each subfolder giving its part, none giving everything."""
    rooms: dict[PurePosixPath, list[list[Picture]]] = defaultdict(list)
    for group in sorted(groups, key=lambda group: _rank(group, seed)):
        rooms[path_within(group[0]).parent].append(group)
    total = sum(map(len, groups))
    quotas = _quotas({room: sum(map(len, members)) for room, members in rooms.items()}, wanted, total)
    chosen: list[list[Picture]] = []
    for room, members in rooms.items():
        chosen += _filled(members, quotas[room])
    left = wanted - sum(map(len, chosen))
    taken = {id(group) for group in chosen}
    for members in rooms.values():  # what quotas of whole groups left open
        rest = [group for group in members if id(group) not in taken]
        more = _filled(rest, left)
        chosen += more
        left -= sum(map(len, more))
    return chosen


def _filled(groups: list[list[Picture]], room: int) -> list[list[Picture]]:
    """The first groups that fit, the last one left where it is."""
    chosen: list[list[Picture]] = []
    for group in groups:
        if len(group) <= room and len(chosen) < len(groups) - 1:
            chosen.append(group)
            room -= len(group)
    return chosen


def _quotas(sizes: dict[PurePosixPath, int], wanted: int, total: int) -> dict[PurePosixPath, int]:
    """Shares in whole numbers that add up, by the largest remainders."""
    exact = {room: wanted * size / total for room, size in sizes.items()}
    quotas = {room: int(value) for room, value in exact.items()}
    by_rest = sorted(exact, key=lambda room: (quotas[room] - exact[room], room))
    for room in by_rest[: wanted - sum(quotas.values())]:
        quotas[room] += 1
    return quotas


def _wanted(pictures: int, share: float | None, count: int | None) -> int:
    """How many pictures to split off."""
    if count is None:
        if share is None or not 0 < share <= 0.5:
            message = f"share: {share} is not above 0 and at most 0.5."
            raise UserError("split.share", message, "0.1 is usual: a tenth.", "share")
        count = max(1, round(share * pictures))
    if not 1 <= count < pictures:
        message = f"count: {count} of {count_of(pictures, 'picture')} cannot be split off: both sides need some."
        raise UserError("split.count", message, "Choose fewer, or add pictures.", "count")
    return count


def _rank(group: list[Picture], seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{path_within(group[0])}".encode("utf-8", "surrogateescape")).digest()


def _groups(pictures: list[Picture], events: EventSink) -> list[list[Picture]]:
    """The pictures by what must stay together: the same file, look, caption or caption file."""
    leader = list(range(len(pictures)))

    def root(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    for same in [*_alike(pictures, events), *_same_caption(pictures), *_same_stem(pictures)]:
        for index in same[1:]:
            leader[root(index)] = root(same[0])
    groups: dict[int, list[Picture]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        groups[root(index)].append(picture)
    return list(groups.values())


def _alike(pictures: list[Picture], events: EventSink) -> Iterable[list[int]]:
    """Indices of pictures that are the same file or look alike."""
    prints: dict[int, similar.Fingerprint] = {}
    digests: dict[str, list[int]] = defaultdict(list)
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        for index, (digest, mark) in enumerate(pool.map(_look, [picture.path for picture in pictures])):
            events.emit("progress", what="comparing pictures", done=index + 1, total=len(pictures))
            digests[digest].append(index)
            if mark is not None:
                prints[index] = mark
    finally:
        pool.shutdown(cancel_futures=True)  # a request to stop must not wait for the pictures still queued
    known = list(prints)
    yield from digests.values()
    yield from ([known[number] for number in group] for group in similar.alike([prints[index] for index in known]))


def _look(path: Path) -> tuple[str, similar.Fingerprint | None]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        return digest, similar.fingerprint(read_preview(path, _PREVIEW_PX))
    except PICTURE_ERRORS:
        return digest, None


def _same_caption(pictures: list[Picture]) -> list[list[int]]:
    """A caption that many have, such as the trigger word alone, says nothing of likeness."""
    captions: dict[str, list[int]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        captions[picture.caption.strip()].append(index)
    few = max(2, len(pictures) // 10)
    return [same for caption, same in captions.items() if caption and len(same) <= few]


def _same_stem(pictures: list[Picture]) -> list[list[int]]:
    """Pictures that share a caption file."""
    stems: dict[PurePosixPath, list[int]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        stems[path_within(picture).with_suffix("")].append(index)
    return list(stems.values())


def _steps(picture: Picture) -> Iterable[Step]:
    """The picture and its caption files move; a caption from a table, which would not be found there, is written."""
    inside = path_within(picture)
    yield Move(inside.as_posix(), f"{VALIDATION}/{inside}")
    has_file = False
    for ending in CAPTION_ENDINGS:
        if picture.path.with_suffix(ending).exists():
            has_file = True
            name = inside.with_suffix(ending).as_posix()
            yield Move(name, f"{VALIDATION}/{name}")
    caption = own_caption_bytes(picture)
    if caption is not None and not has_file:
        yield Change(f"{VALIDATION}/{inside.with_suffix('.txt')}", None, decode(caption).text)
