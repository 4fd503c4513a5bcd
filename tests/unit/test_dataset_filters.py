"""Which pictures of a dataset match, in what order, and what the filter offers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from dataset_samples import write_picture

from trainer.config import BucketSettings, DatasetSettings
from ui.dataset.filters import Facts, Query, bucket_of, choices, matching, shape_of
from ui.dataset.library import Library, Listing
from ui.dataset.sizes import PictureSizes

SIZES = {"a.png": (64, 64), "b.png": (128, 64), "c.png": (64, 96), "sub/d.png": (96, 96), "sub/deep/e.png": (0, 0)}
CAPTIONS = {"a.png": "a red cat, sitting", "b.png": "blue cat\na blue animal, sitting, wet", "sub/d.png": " \n"}
FINDINGS: list[dict[str, Any]] = [
    {"code": "x", "severity": "error", "paths": ["a.png", "sub/d.png"], "message": "Bad", "hint": "Look."},
    {"code": "y", "severity": "info", "paths": [], "message": "General", "hint": ""},
    {"code": "picture.duplicate", "severity": "warning", "paths": ["a.png", "b.png"], "message": "1", "hint": ""},
    {"code": "picture.duplicate", "severity": "warning", "paths": ["c.png", "sub/d.png"], "message": "2", "hint": ""},
    {"code": "picture.near_duplicate", "severity": "warning", "paths": ["c.png"], "message": "Alike", "hint": ""},
]
ALL = list(SIZES)


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    folder = tmp_path / "mine"
    for number, (name, (width, height)) in enumerate(SIZES.items()):
        path = write_picture(folder / name, width or 1, height or 1, number, CAPTIONS.get(name))
        if not width:
            path.write_bytes(b"broken")
        os.utime(path, (1000 + number, 1000 + number))
    write_picture(folder / ".atelier/masks/c.png")
    return Library(lambda: [tmp_path]).listing(folder)


@pytest.fixture
def facts(listing: Listing, tmp_path: Path) -> Facts:
    sizes = PictureSizes(tmp_path / "cache", lambda: [tmp_path]).of(listing.folder, listing.entries)
    assert sizes == SIZES
    return Facts(FINDINGS, sizes, DatasetSettings(resolution=128))


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (Query(), ALL),
        (Query(text=" CAT "), ["a.png", "b.png"]),
        (Query(text="sub/"), ["sub/d.png", "sub/deep/e.png"]),
        (Query(show="uncaptioned"), ["c.png", "sub/d.png", "sub/deep/e.png"]),
        (Query(show="captioned"), ["a.png", "b.png"]),
        (Query(tags=("sitting",)), ["a.png", "b.png"]),
        (Query(tags=("cat",)), []),
        (Query(tags=("sitting", "wet")), ["b.png"]),
        (Query(tags=("a red cat", "wet"), among="any"), ["a.png", "b.png"]),
        (Query(tags=("wet", "nowhere"), among="none"), ["a.png", "c.png", "sub/d.png", "sub/deep/e.png"]),
        (Query(show="finding:0"), ["a.png", "sub/d.png"]),
        (Query(show="finding:0", text="red"), ["a.png"]),
        (Query(show="finding:99"), ALL),
        (Query(show="code:picture.duplicate"), ["a.png", "b.png", "c.png", "sub/d.png"]),
        (Query(show="code:nonsense"), ALL),
        (Query(show="duplicates"), ["a.png", "b.png", "c.png", "sub/d.png"]),
        (Query(folder="sub"), ["sub/d.png", "sub/deep/e.png"]),
        (Query(folder="sub/deep"), ["sub/deep/e.png"]),
        (Query(folder="."), ["a.png", "b.png", "c.png"]),
        (Query(mask="with"), ["c.png"]),
        (Query(mask="without", folder="."), ["a.png", "b.png"]),
        (Query(shape="square"), ["a.png", "sub/d.png"]),
        (Query(shape="portrait"), ["c.png"]),
        (Query(shape="unreadable"), ["sub/deep/e.png"]),
        (Query(bucket="64x64"), ["a.png", "c.png", "sub/d.png"]),
        (Query(bucket="1x1"), []),
        (Query(sort="newest"), ALL[::-1]),
        (Query(sort="oldest"), ALL),
        (Query(sort="largest"), ["sub/d.png", "b.png", "c.png", "a.png", "sub/deep/e.png"]),
        (Query(sort="smallest"), ["sub/deep/e.png", "a.png", "c.png", "b.png", "sub/d.png"]),
        (Query(sort="longest", show="captioned"), ["b.png", "a.png"]),
        (Query(sort="shortest", show="captioned"), ["a.png", "b.png"]),
    ],
)
def test_filters_and_order(query: Query, names: list[str], listing: Listing, facts: Facts) -> None:
    found = matching(listing, query, facts)
    assert [entry.name for _, entry in found] == names
    assert all(listing.entries[number] is entry for number, entry in found)


def test_what_is_offered(listing: Listing, facts: Facts) -> None:
    offered = choices(listing, facts)
    assert offered["shows"] == [
        ("all", "All pictures (5)"),
        ("uncaptioned", "Without a caption (3)"),
        ("captioned", "With a caption (2)"),
        ("duplicates", "Duplicates and look-alikes (4)"),
        ("finding:0", "Bad (2)"),
        ("finding:4", "Alike (1)"),
        ("code:picture.duplicate", "Files that are there twice or more (4)"),
    ]
    assert offered["tags"][0] == ("sitting", 2)
    assert offered["shapes"][0] == ("square", "Square (2)")
    assert offered["folders"] == [(".", "In no subfolder (3)"), ("sub", "sub (2)"), ("sub/deep", "sub/deep (1)")]
    assert offered["masks"] == [("with", "With a mask (1)"), ("without", "Without a mask (4)")]
    assert ("64x64", "64 × 64 (3)") in offered["buckets"]
    assert sum(len(matching(listing, Query(bucket=name), facts)) for name, _ in offered["buckets"]) == 4


def test_pictures_not_yet_measured_are_in_no_bucket(listing: Listing) -> None:
    facts = Facts(sizes={"a.png": (64, 64)}, settings=DatasetSettings(resolution=64))
    assert choices(listing, facts)["buckets"] == [("64x64", "64 × 64 (1)")]
    assert len(matching(listing, Query(shape="square"), facts)) == 1


def test_buckets_by_hand() -> None:
    """A 1024 x 512 picture at 512: area 512 x 512 and sides in steps of 64 give 704 x 320, the closest to 2 : 1."""
    assert bucket_of((1024, 512), DatasetSettings(resolution=512, buckets=BucketSettings(upscale=True))) == "704x320"
    assert bucket_of((300, 200), DatasetSettings(resolution=512)) == "256x192"
    assert bucket_of((0, 0), DatasetSettings()) == ""
    assert shape_of((2, 1)) == "landscape"


@pytest.mark.parametrize(
    ("sent", "query"),
    [
        ({"page": 2, "text": "x", "show": "all", "tags": ["t", 5]}, Query(2, "x", "all", ("t",))),
        ({"page": -1}, Query()),
        ({"page": "3", "text": 5, "show": None, "tags": "x", "sort": "worst", "per_page": 10**9}, Query()),
        ({"sort": "newest", "per_page": 96, "among": "none"}, Query(sort="newest", per_page=96, among="none")),
        ({"sort": ["newest"], "per_page": [24], "among": {}, "bucket": {}}, Query()),
        ({"tags": ["t"] * 999, "text": "x" * 9999}, Query(tags=("t",) * 50, text="x" * 500)),
        ({}, Query()),
    ],
)
def test_whatever_the_browser_sends_is_a_query(sent: dict[str, Any], query: Query) -> None:
    assert Query.of(sent) == query
    assert Query.of({**query.as_json(), "page": query.page}) == query
