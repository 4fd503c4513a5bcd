"""Which pictures of a dataset are asked for, and in what order; and what there is to choose from. No Gradio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from trainer.config import DatasetSettings
from trainer.data.buckets import place
from ui.dataset.library import Entry, Listing
from ui.dataset.sizes import Size

PER_PAGE = 48
PAGE_SIZES = (24, PER_PAGE, 96)
Sort = Literal["name", "newest", "oldest", "largest", "smallest", "longest", "shortest"]
Among = Literal["all", "any", "none"]
"""Whether a picture must have all, one or none of the tags."""

DUPLICATES = frozenset({"picture.duplicate", "picture.near_duplicate"})
SIMILAR_FINDINGS = {
    "picture.duplicate": "Files that are there twice or more",
    "picture.near_duplicate": "Pictures that look almost the same",
    "caption.identical": "Pictures with the same caption",
    "caption.shared": "Pictures that share a caption file",
}
"""What the doctor tells once per group of pictures: one choice for all the groups."""

_MAX_QUERY = 500
_MAX_TAGS = 50

Finding = dict[str, Any]
"""A doctor's finding as JSON: code, severity, paths, message, hint."""


@dataclass(frozen=True)
class Query:
    """Which pictures are asked for. An empty text asks for nothing in particular.

    Attributes:
        page: counted from 0.
        text: in the caption or the name.
        show: all, captioned, uncaptioned, ``finding:N`` for the doctor's N-th finding, ``code:X`` for those of a code,
            or ``duplicates``.
        tags: tags asked for.
        among: how many of the tags a picture must have.
        bucket: the size that training brings the picture to, as ``512x768``.
        shape: portrait, landscape, square or unreadable.
        folder: the subfolder it lies in, or below; ``.`` for none.
        mask: with or without.
    """

    page: int = 0
    text: str = ""
    show: str = "all"
    tags: tuple[str, ...] = ()
    among: Among = "all"
    bucket: str = ""
    shape: str = ""
    folder: str = ""
    mask: str = ""
    sort: Sort = "name"
    per_page: int = PER_PAGE

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Query:
        """From what the browser sent; anything odd becomes the first page of everything."""
        page, per_page, tags = values.get("page"), values.get("per_page"), values.get("tags")
        texts = {name: values.get(name) for name in ("text", "show", "bucket", "shape", "folder", "mask")}
        kept: dict[str, Any] = {name: text[:_MAX_QUERY] for name, text in texts.items() if isinstance(text, str)}
        for name, allowed in (("sort", get_args(Sort)), ("among", get_args(Among))):
            if values.get(name) in allowed:
                kept[name] = values[name]
        return cls(
            page=page if isinstance(page, int) and page > 0 else 0,
            per_page=per_page if per_page in PAGE_SIZES else PER_PAGE,
            tags=_texts(tags)[:_MAX_TAGS] if isinstance(tags, list | tuple) else (),
            **kept,
        )

    def as_json(self) -> dict[str, Any]:
        """For the browser, which sends it back; the page is told apart."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "page"}


@dataclass(frozen=True)
class Facts:
    """What is known of a folder's pictures beside their files and captions.

    Attributes:
        findings: what the doctor found.
        sizes: by name, as far as they were read; a picture without one is in no bucket and has no shape.
        settings: how the pictures will be trained: tells their buckets.
        checked: when the doctor looked, in Unix seconds; None where it never did.
    """

    findings: Sequence[Finding] = ()
    sizes: Mapping[str, Size] = field(default_factory=dict)
    settings: DatasetSettings = field(default_factory=DatasetSettings)
    checked: float | None = None


def matching(listing: Listing, query: Query, facts: Facts) -> list[tuple[int, Entry]]:
    """The pictures that the query asks for, each with its number in the listing, in the order asked for."""
    tests = _tests(query, facts)
    found = [item for item in enumerate(listing.entries) if all(test(item[1]) for test in tests)]
    key = _sort_keys(facts.sizes).get(query.sort)
    return found if key is None else sorted(found, key=lambda item: key(item[1]))


def choices(listing: Listing, facts: Facts) -> dict[str, Any]:
    """What the filter offers, each as (value, label), and the table of tags."""
    masked = sum(entry.has_mask for entry in listing.entries)
    buckets, shapes = Counter[str](), Counter[str]()
    for size, count in Counter(facts.sizes.values()).items():
        shapes[shape_of(size)] += count
        if bucket := bucket_of(size, facts.settings):
            buckets[bucket] += count
    folders = Counter(folder for entry in listing.entries for folder in entry.folders)
    masks = [("with", f"With a mask ({masked})"), ("without", f"Without a mask ({len(listing.entries) - masked})")]
    return {
        "shows": _shows(listing, facts.findings),
        "tags": listing.tags,
        "buckets": [(name, f"{name.replace('x', ' × ')} ({buckets[name]})") for name in sorted(buckets, key=_sides)],
        "shapes": [(name, f"{name.capitalize()} ({count})") for name, count in shapes.most_common()],
        "folders": [(name, f"{_folder_label(name)} ({count})") for name, count in sorted(folders.items())],
        "masks": masks if masked else [],
    }


def bucket_of(size: Size, settings: DatasetSettings) -> str:
    """The size that a picture is trained at, as ``512x768``; empty for one that cannot be read."""
    if not all(size):
        return ""
    placement = place(*size, settings)
    return f"{placement.width}x{placement.height}"


def shape_of(size: Size) -> str:
    """``portrait``, ``landscape`` or ``square``; ``unreadable`` where there is no size."""
    width, height = size
    if not width or not height:
        return "unreadable"
    return "square" if width == height else "portrait" if width < height else "landscape"


def _tests(query: Query, facts: Facts) -> list[Callable[[Entry], bool]]:
    sizes = facts.sizes
    tests: list[Callable[[Entry], bool]] = []
    if query.show == "uncaptioned":
        tests.append(lambda entry: not entry.own.text.strip())
    elif query.show == "captioned":
        tests.append(lambda entry: bool(entry.own.text.strip()))
    elif (names := _found(query.show, facts.findings)) is not None:
        tests.append(lambda entry: entry.name in names)
    if query.tags:
        tests.append(_tag_test(frozenset(query.tags), query.among))
    if text := query.text.strip().lower():
        tests.append(lambda entry: text in entry.searched)
    if query.folder:
        tests.append(lambda entry: query.folder in entry.folders)
    if query.mask in ("with", "without"):
        tests.append(lambda entry: entry.has_mask == (query.mask == "with"))
    if query.shape:
        tests.append(lambda entry: entry.name in sizes and shape_of(sizes[entry.name]) == query.shape)
    if query.bucket:
        wanted = {size for size in set(sizes.values()) if bucket_of(size, facts.settings) == query.bucket}
        tests.append(lambda entry: sizes.get(entry.name) in wanted)
    return tests


def _tag_test(tags: frozenset[str], among: Among) -> Callable[[Entry], bool]:
    if among == "all":
        return lambda entry: tags <= entry.tags
    return lambda entry: tags.isdisjoint(entry.tags) == (among == "none")


def _sort_keys(sizes: Mapping[str, Size]) -> dict[Sort, Callable[[Entry], int]]:
    """By what a smaller number comes first; equal ones stay in the order of their names."""

    def area(entry: Entry) -> int:
        width, height = sizes.get(entry.name, (0, 0))
        return width * height

    return {
        "newest": lambda entry: -entry.stamp[0],
        "oldest": lambda entry: entry.stamp[0],
        "largest": lambda entry: -area(entry),
        "smallest": area,
        "longest": lambda entry: -len(entry.own.text),
        "shortest": lambda entry: len(entry.own.text),
    }


def _shows(listing: Listing, findings: Sequence[Finding]) -> list[tuple[str, str]]:
    total, captioned = len(listing.entries), listing.captioned
    shows = [
        ("all", f"All pictures ({total})"),
        ("uncaptioned", f"Without a caption ({total - captioned})"),
        ("captioned", f"With a caption ({captioned})"),
    ]
    if names := _found("duplicates", findings):
        shows.append(("duplicates", f"Duplicates and look-alikes ({len(names)})"))
    grouped = Counter(finding["code"] for finding in findings)
    for number, finding in enumerate(findings):
        code, count = finding["code"], len(finding["paths"])
        if count and not (code in SIMILAR_FINDINGS and grouped[code] > 1):
            shows.append((f"finding:{number}", f"{finding['message']} ({count})"))
    for code, label in SIMILAR_FINDINGS.items():
        if grouped[code] > 1:
            shows.append((f"code:{code}", f"{label} ({len(_found(f'code:{code}', findings) or ())})"))
    return shows


def _found(show: str, findings: Sequence[Finding]) -> set[str] | None:
    """Names of the pictures that the doctor's findings speak of; None where ``show`` is about none of them."""
    kind, _, which = show.partition(":")
    if kind == "finding" and which.isdecimal() and int(which) < len(findings):
        return set(findings[int(which)]["paths"])
    codes = DUPLICATES if kind == "duplicates" else {which} if kind == "code" else set()
    wanted = [finding for finding in findings if finding["code"] in codes]
    return {name for finding in wanted for name in finding["paths"]} if wanted else None


def _sides(bucket: str) -> tuple[int, ...]:
    return tuple(map(int, bucket.split("x")))


def _folder_label(name: str) -> str:
    return "In no subfolder" if name == "." else name


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(value[:_MAX_QUERY] for value in values if isinstance(value, str))
