"""Thumbnails: small, cached, renewed when the file changes, and only ever of pictures the server listed itself."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from ui.dataset.thumbnails import THUMB_PX, VIEW_PX, Thumbnails, limit_cache
from ui.page import Page


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (2000, 1000), (number * 100, 0, 0)).save(path)
    return paths


@pytest.fixture
def thumbnails(tmp_path: Path) -> Thumbnails:
    return Thumbnails(tmp_path / "cache", lambda: [tmp_path])


@pytest.fixture
def client(thumbnails: Thumbnails) -> TestClient:
    page = Page()
    thumbnails.add_routes(page)
    return TestClient(Starlette(routes=page.routes))


def registered(thumbnails: Thumbnails, pictures: list[Path]) -> str:
    return thumbnails.register(pictures[0].parent, [path.name for path in pictures])


def address(thumbnails: Thumbnails, token: str, index: int, path: Path, kind: str = "thumb") -> str:
    return thumbnails.address(kind, token, index, path.stat().st_mtime_ns if path.exists() else 0)


def size(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def test_served_by_number(client: TestClient, thumbnails: Thumbnails, pictures: list[Path]) -> None:
    token = registered(thumbnails, pictures)
    answer = client.get(address(thumbnails, token, 2, pictures[2]))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    assert "immutable" in answer.headers["cache-control"]
    assert size(answer.content) == (THUMB_PX, THUMB_PX // 2)
    assert Image.open(io.BytesIO(answer.content)).getpixel((5, 5))[0] == pytest.approx(200, abs=6)
    view = client.get(address(thumbnails, token, 0, pictures[0], "picture"))
    assert size(view.content) == (VIEW_PX, VIEW_PX // 2)


@pytest.mark.parametrize(
    "path",
    [
        "/atelier/thumb/{token}/3",
        "/atelier/thumb/{token}/-1",
        "/atelier/thumb/unknown/0",
        "/atelier/thumb/{token}/..%2f..%2fetc%2fpasswd",
        "/atelier/thumb/{token}//etc/passwd",
    ],
)
def test_nothing_else_is_served(path: str, client: TestClient, thumbnails: Thumbnails, pictures: list[Path]) -> None:
    token = registered(thumbnails, pictures)
    assert client.get(path.format(token=token)).status_code == 404


def test_broken_and_missing_pictures_are_404(client: TestClient, thumbnails: Thumbnails, pictures: list[Path]) -> None:
    pictures[0].write_bytes(b"<html>")
    pictures[1].unlink()
    token = registered(thumbnails, pictures)
    for index in (0, 1):
        assert client.get(address(thumbnails, token, index, pictures[index])).status_code == 404


def test_cached_until_the_file_changes(thumbnails: Thumbnails, pictures: list[Path], tmp_path: Path) -> None:
    first = thumbnails.small(pictures[0], THUMB_PX)
    cached = list((tmp_path / "cache").rglob("*.webp"))
    cached[0].write_bytes(b"from the cache")
    assert thumbnails.small(pictures[0], THUMB_PX) == b"from the cache"
    token = registered(thumbnails, pictures)
    before = address(thumbnails, token, 0, pictures[0])
    Image.new("RGB", (500, 500), "white").save(pictures[0])
    assert thumbnails.small(pictures[0], THUMB_PX) not in (first, b"from the cache")
    assert address(thumbnails, token, 0, pictures[0]) != before


def test_old_lists_are_forgotten(client: TestClient, thumbnails: Thumbnails, pictures: list[Path]) -> None:
    token = registered(thumbnails, pictures)
    assert registered(thumbnails, pictures) == token
    for number in range(40):
        thumbnails.register(pictures[0].parent, [f"{number}.png"])
    assert client.get(f"/atelier/thumb/{token}/0").status_code == 404


def test_made_beforehand(thumbnails: Thumbnails, pictures: list[Path], tmp_path: Path) -> None:
    pictures[1].write_bytes(b"broken")
    thumbnails.prepare(pictures)
    deadline = time.monotonic() + 30
    while len(list((tmp_path / "cache").rglob("*.webp"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_file_that_became_a_link_to_elsewhere_is_not_served(
    client: TestClient, thumbnails: Thumbnails, pictures: list[Path], tmp_path: Path
) -> None:
    """Not even from the cache, where somebody else may have put it by looking."""
    secret = tmp_path.parent / f"{tmp_path.name}-outside.png"
    Image.new("RGB", (9, 9)).save(secret)
    token = registered(thumbnails, pictures)
    Thumbnails(tmp_path / "cache", lambda: [tmp_path.parent]).small(secret, THUMB_PX)
    pictures[0].unlink()
    pictures[0].symlink_to(secret)
    pictures[1].unlink()
    pictures[1].symlink_to(pictures[1])
    for index in (0, 1):
        assert client.get(f"/atelier/thumb/{token}/{index}").status_code == 404
    folder = pictures[0].parent
    folder.rename(tmp_path / "moved")
    folder.symlink_to(secret.parent)
    assert client.get(f"/atelier/picture/{token}/2").status_code == 404


def test_the_cache_is_limited(tmp_path: Path) -> None:
    """The file used last stays, though it was made first."""
    files = [tmp_path / "cache" / "ab" / f"{number}.webp" for number in range(3)]
    files[0].parent.mkdir(parents=True)
    for number, file in enumerate(files):
        file.write_bytes(b"x" * 1000)
        os.utime(file, (1000 + number, 1000 + number))
    limit_cache(tmp_path / "cache", 3000)
    assert all(file.exists() for file in files), "nothing is deleted below the limit"
    os.utime(files[0], (5000, 5000))
    limit_cache(tmp_path / "cache", 2500)
    assert [file.exists() for file in files] == [True, False, True]


def test_looking_counts_as_use(thumbnails: Thumbnails, pictures: list[Path], tmp_path: Path) -> None:
    thumbnails.small(pictures[0], THUMB_PX)
    (cached,) = (tmp_path / "cache").rglob("*.webp")
    os.utime(cached, (1000, 1000))
    thumbnails.small(pictures[0], THUMB_PX)
    assert cached.stat().st_mtime > 1_000_000


def test_turned_and_transparent_pictures(thumbnails: Thumbnails, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 200), "red").save(tmp_path / "turned.jpg", exif=exif)
    assert size(thumbnails.small(tmp_path / "turned.jpg", THUMB_PX)) == (THUMB_PX // 2, THUMB_PX)
    Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    clear = Image.open(io.BytesIO(thumbnails.small(tmp_path / "clear.png", THUMB_PX)))
    assert clear.getpixel((5, 5)) == (255, 255, 255)
