"""Sizes of pictures: read once, kept, and read again when a file changes or the index is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dataset_samples import write_picture

from ui.dataset import sizes as sizes_module
from ui.dataset.library import Library, Listing
from ui.dataset.sizes import PictureSizes

EXPECTED = {"a.png": (40, 30), "b.png": (30, 40), "broken.png": (0, 0)}


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    folder = tmp_path / "mine"
    write_picture(folder / "a.png", 40, 30)
    write_picture(folder / "b.png", 30, 40)
    (folder / "broken.png").write_bytes(b"broken")
    return listed(tmp_path)


def listed(tmp_path: Path) -> Listing:
    return Library(lambda: [tmp_path]).listing(tmp_path / "mine")


def measured(sizes: PictureSizes, listing: Listing) -> dict[str, tuple[int, int]]:
    sizes.known(listing)
    sizes.wait(listing.folder)
    return sizes.known(listing)


def test_read_in_the_background_and_kept(listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = PictureSizes(tmp_path / "cache", lambda: [tmp_path])
    assert measured(sizes, listing) == EXPECTED
    monkeypatch.setattr(sizes_module, "read_size", lambda path: pytest.fail(f"{path} was read again"))
    assert PictureSizes(tmp_path / "cache", lambda: [tmp_path]).known(listing) == EXPECTED


def test_read_again_where_a_file_changed(listing: Listing, tmp_path: Path) -> None:
    measured(PictureSizes(tmp_path / "cache", lambda: [tmp_path]), listing)
    write_picture(tmp_path / "mine/a.png", 8, 9)
    (tmp_path / "mine/b.png").unlink()
    sizes, now = PictureSizes(tmp_path / "cache", lambda: [tmp_path]), listed(tmp_path)
    assert sizes.of(now.folder, now.entries[:1]) == {"a.png": (8, 9)}
    assert measured(sizes, now) == {"a.png": (8, 9), "broken.png": (0, 0)}


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"version": 0}', b'{"version": 1, "pictures": {"a.png": [1, "x"]}}'])
def test_a_damaged_index_is_made_anew(damage: bytes, listing: Listing, tmp_path: Path) -> None:
    measured(PictureSizes(tmp_path / "cache", lambda: [tmp_path]), listing)
    (index,) = (tmp_path / "cache").iterdir()
    index.write_bytes(damage)
    assert measured(PictureSizes(tmp_path / "cache", lambda: [tmp_path]), listing) == EXPECTED
    assert set(json.loads(index.read_text())["pictures"]) == EXPECTED.keys()


def test_a_file_that_became_a_link_to_elsewhere_is_not_opened(listing: Listing, tmp_path: Path) -> None:
    outside = write_picture(tmp_path / "outside.png", 77, 77)
    (tmp_path / "mine/a.png").unlink()
    (tmp_path / "mine/a.png").symlink_to(outside)
    sizes = PictureSizes(tmp_path / "cache", lambda: [tmp_path / "mine"])
    assert sizes.of(listing.folder, listing.entries)["a.png"] == (0, 0)


def test_a_full_disk_is_no_failure(listing: Listing, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    assert measured(PictureSizes(tmp_path / "file", lambda: [tmp_path]), listing) == EXPECTED
