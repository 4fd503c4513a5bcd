"""Where files that come into a folder of pictures go: beside what is there, never over it."""

from __future__ import annotations

import filecmp
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from trainer.curation.picture_sets import comparable
from trainer.data.caption_tables import read_caption_tables
from trainer.data.image_files import is_picture_file
from trainer.data.own_captions import CAPTION_ENDINGS
from trainer.files import fsync_folder

_TABLE_ENDINGS = (".jsonl", ".csv")


@dataclass(frozen=True)
class Arrival:
    """A file that came in.

    Attributes:
        path: where it lies for now.
        origin: number of the zip file it came from; 0 for files given by themselves.
        given: its name as given, with folders.
        name: the path it would like to have in the folder.
    """

    path: Path
    origin: int
    given: str
    name: PurePosixPath


@dataclass
class Intake:
    """What came in.

    Attributes:
        added: number of files added.
        same: names of files that were there already, with the same content.
        renamed: (given name, new name) of pictures whose name was taken.
        skipped: (name, reason) of files left out.
        notes: what else there is to say, in sentences.
    """

    added: int = 0
    same: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def settle(arrivals: Sequence[Arrival], folder: Path, scratch: Path) -> Intake:
    """Move the files into ``folder``. ``scratch`` is a folder on the same disk, for captions that come from tables.

    A caption table stays one where the folder is new and all names are as given; otherwise its captions are written as
    files beside the pictures that came with it, since its names would no longer fit.
    """
    tables = [each for each in arrivals if each.name.suffix in _TABLE_ENDINGS]
    others = [each for each in arrivals if each.name.suffix not in _TABLE_ENDINGS]
    intake = Intake()
    is_new = not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir())
    plain = all(each.given == each.name.as_posix() for each in arrivals) and len({each.origin for each in arrivals}) < 2
    if tables and not (is_new and plain):
        others += _captions_of(tables, others, scratch, intake)
        tables = []
    places = _Places(folder)
    for group in _groups(others):
        _settle_group(group, places, intake)
    for table in tables:
        places.put(table, table.name, intake)
    for changed in places.changed:
        fsync_folder(changed)
    return intake


class _Places:
    """The files of the folder by their folder and comparable stem, kept up to date while files come in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, dict[str, list[Path]]] = {}
        self.changed: set[Path] = set()

    def of_stem(self, parent: PurePosixPath, stem: str) -> list[Path]:
        """All files there with this stem."""
        return self._listing(self._folder / parent).get(comparable(stem), [])

    def leads_out(self, parent: PurePosixPath) -> bool:
        """Whether the folder lies elsewhere: a link in it must not be written through."""
        return not (self._folder / parent).resolve().is_relative_to(self._folder.resolve())

    def put(self, arrival: Arrival, name: PurePosixPath, intake: Intake) -> None:
        """Move a file to a place that is free."""
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        arrival.path.rename(target)
        self._listing(target.parent)[comparable(name.stem)].append(target)
        self.changed.add(target.parent)
        intake.added += 1

    def _listing(self, parent: Path) -> dict[str, list[Path]]:
        if parent not in self._known:
            self._known[parent] = defaultdict(list)
            for path in sorted(parent.iterdir()) if parent.is_dir() else []:
                self._known[parent][comparable(path.stem)].append(path)
        return self._known[parent]


def _groups(arrivals: Iterable[Arrival]) -> list[list[Arrival]]:
    """Files that belong together: a picture and its captions, which come from one place and differ in the ending."""
    groups: dict[tuple[int, str, int], list[Arrival]] = {}
    for each in arrivals:
        stem = each.given.removesuffix(each.name.suffix)
        for twin in itertools.count():  # a zip file may hold the same name twice
            group = groups.setdefault((each.origin, stem, twin), [])
            if all(other.name.suffix != each.name.suffix for other in group):
                group.append(each)
                break
    return list(groups.values())


def _settle_group(group: list[Arrival], places: _Places, intake: Intake) -> None:
    """Find the first stem, with a number behind it if need be, that is free, or whose picture is this one already."""
    name = group[0].name
    if places.leads_out(name.parent):
        intake.skipped += [(each.given, "its folder is a link that leads elsewhere") for each in group]
        return
    pictures = [each for each in group if is_picture_file(Path(each.name))]
    captions = [each for each in group if each not in pictures]
    if not pictures:
        _settle_captions(captions, name, places, intake)
        return
    for number in itertools.count(1):
        wanted = name.with_stem(name.stem if number == 1 else f"{name.stem}-{number}")
        there = places.of_stem(wanted.parent, wanted.stem)
        if all(_twin(each, wanted, there) for each in pictures):
            intake.same += [each.given for each in pictures]
            _settle_captions(captions, wanted, places, intake)
            return
        if not any(is_picture_file(path) for path in there) and not _clash(captions, wanted, there):
            _settle_captions(captions, wanted, places, intake)
            for each in pictures:
                _put_picture(each, wanted, places, intake)
            return


def _put_picture(picture: Arrival, wanted: PurePosixPath, places: _Places, intake: Intake) -> None:
    target = wanted.with_suffix(picture.name.suffix)
    places.put(picture, target, intake)
    if target.name != picture.name.name:
        intake.renamed.append((picture.given, target.as_posix()))


def _settle_captions(captions: list[Arrival], wanted: PurePosixPath, places: _Places, intake: Intake) -> None:
    for each in captions:
        there = places.of_stem(wanted.parent, wanted.stem)
        if _twin(each, wanted, there):
            intake.same.append(each.given)
        elif _clash([each], wanted, there):
            intake.skipped.append((each.given, "its picture has another caption already, and that one stays"))
        else:
            places.put(each, wanted.with_suffix(each.name.suffix), intake)


def _twin(arrival: Arrival, wanted: PurePosixPath, there: list[Path]) -> bool:
    """Whether the file is there already, with the same content."""
    path = _namesake(arrival, wanted, there)
    return path is not None and path.is_file() and filecmp.cmp(arrival.path, path, shallow=False)


def _clash(captions: list[Arrival], wanted: PurePosixPath, there: list[Path]) -> bool:
    """Whether one of the captions would take another's place, or be overruled by it."""
    has_caption = any(path.suffix.lower() in CAPTION_ENDINGS for path in there)
    return has_caption and not all(_twin(each, wanted, there) for each in captions)


def _namesake(arrival: Arrival, wanted: PurePosixPath, there: list[Path]) -> Path | None:
    name = comparable(wanted.with_suffix(arrival.name.suffix).name)
    return next((path for path in there if comparable(path.name) == name), None)


def _captions_of(tables: list[Arrival], others: list[Arrival], scratch: Path, intake: Intake) -> list[Arrival]:
    """The captions of tables as files for the pictures that came with them and have no caption file."""
    made: list[Arrival] = []
    have = {(each.origin, PurePosixPath(each.given).with_suffix("")) for each in others if not _is_picture(each)}
    for table in tables:
        root = Path(PurePosixPath(table.given).parent)
        rows = read_caption_tables(Path("nowhere"), elsewhere=table.path).captions
        texts = {root / path.relative_to("nowhere"): text for path, text in rows.items() if not path.is_absolute()}
        for picture in filter(_is_picture, others):
            text = texts.get(Path(picture.given))
            stem = (picture.origin, PurePosixPath(picture.given).with_suffix(""))
            if text is None or picture.origin != table.origin or stem in have:
                continue
            path = scratch / f"caption-{len(made):06}.txt"
            path.write_bytes(text.encode("utf-8"))
            given = PurePosixPath(picture.given).with_suffix(".txt").as_posix()
            made.append(Arrival(path, picture.origin, given, picture.name.with_suffix(".txt")))
        intake.notes.append(f"The captions in {table.given} were written as files beside their pictures.")
    return made


def _is_picture(arrival: Arrival) -> bool:
    return is_picture_file(Path(arrival.name))
