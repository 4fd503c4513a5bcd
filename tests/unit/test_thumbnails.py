"""Thumbnails: small, cached, renewed when the file changes, and only ever of pictures the server listed itself."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from ui.dataset.thumbnails import THUMB_PX, VIEW_PX, Thumbnails
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
    return Thumbnails(tmp_path / "cache")


@pytest.fixture
def client(thumbnails: Thumbnails) -> TestClient:
    page = Page()
    thumbnails.add_routes(page)
    return TestClient(Starlette(routes=page.routes))


def size(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def test_served_by_number(client: TestClient, thumbnails: Thumbnails, pictures: list[Path]) -> None:
    token = thumbnails.register(pictures)
    answer = client.get(thumbnails.address("thumb", token, 2, pictures[2]))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    assert "immutable" in answer.headers["cache-control"]
    assert size(answer.content) == (THUMB_PX, THUMB_PX // 2)
    assert Image.open(io.BytesIO(answer.content)).getpixel((5, 5))[0] == pytest.approx(200, abs=6)
    view = client.get(thumbnails.address("picture", token, 0, pictures[0]))
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
    token = thumbnails.register(pictures)
    assert client.get(path.format(token=token)).status_code == 404


def test_broken_and_missing_pictures_are_404(client: TestClient, thumbnails: Thumbnails, pictures: list[Path]) -> None:
    pictures[0].write_bytes(b"<html>")
    pictures[1].unlink()
    token = thumbnails.register(pictures)
    for index in (0, 1):
        assert client.get(thumbnails.address("thumb", token, index, pictures[index])).status_code == 404


def test_cached_until_the_file_changes(thumbnails: Thumbnails, pictures: list[Path], tmp_path: Path) -> None:
    first = thumbnails.small(pictures[0], THUMB_PX)
    cached = list((tmp_path / "cache").rglob("*.webp"))
    cached[0].write_bytes(b"from the cache")
    assert thumbnails.small(pictures[0], THUMB_PX) == b"from the cache"
    token = thumbnails.register(pictures)
    before = thumbnails.address("thumb", token, 0, pictures[0])
    Image.new("RGB", (500, 500), "white").save(pictures[0])
    assert thumbnails.small(pictures[0], THUMB_PX) not in (first, b"from the cache")
    assert thumbnails.address("thumb", token, 0, pictures[0]) != before


def test_old_lists_are_forgotten(client: TestClient, thumbnails: Thumbnails, pictures: list[Path]) -> None:
    token = thumbnails.register(pictures)
    assert thumbnails.register(pictures) == token
    for number in range(40):
        thumbnails.register([pictures[0].with_name(f"{number}.png")])
    assert client.get(f"/atelier/thumb/{token}/0").status_code == 404


def test_turned_and_transparent_pictures(thumbnails: Thumbnails, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 200), "red").save(tmp_path / "turned.jpg", exif=exif)
    assert size(thumbnails.small(tmp_path / "turned.jpg", THUMB_PX)) == (THUMB_PX // 2, THUMB_PX)
    Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    clear = Image.open(io.BytesIO(thumbnails.small(tmp_path / "clear.png", THUMB_PX)))
    assert clear.getpixel((5, 5)) == (255, 255, 255)
