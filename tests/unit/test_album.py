"""The album: every picture is found by what it was made with, read once, and never lost."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.errors import UserError
from trainer.pictures import save_png
from trainer.runs.bin import Bin
from trainer.runs.store import Workspace
from ui.generate import album as album_module
from ui.generate.album import Album
from ui.generate.cards import cards, facts

SETTINGS: dict[str, Any] = {"prompt": "a red star", "seed": 7, "sampler": "euler_a", "width": 64, "height": 96}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def add(workspace: Workspace, number: int, **settings: Any) -> Path:
    path = workspace.pictures_dir / f"{number:05d}-s7.png"
    save_png(Image.new("RGB", (8, 8)), path, SETTINGS | settings)
    os.utime(path, ns=(number * 10**9, number * 10**9))
    return path


def names(album: Album, text: str = "", **query: Any) -> list[int]:
    return [int(picture.name[:5]) for picture in album.page(text, **query).pictures]


def test_newest_first_in_pages(workspace: Workspace) -> None:
    for number in range(1, 8):
        add(workspace, number)
    (workspace.pictures_dir / "notes.txt").write_text("no picture")
    (workspace.pictures_dir / "99999-link.png").symlink_to(workspace.pictures_dir / "00001-s7.png")
    album = Album(workspace)
    assert names(album, count=3) == [7, 6, 5]
    page = album.page(first=6, count=3)
    assert (page.first, page.found, page.total, [p.name for p in page.pictures]) == (6, 7, 7, ["00001-s7.png"])
    assert album.page(first=60, count=3).first == 6, "a page that is gone: the last one there is"
    assert Album(Workspace(workspace.dir / "empty")).page().pictures == []


def test_found_by_every_word_of_what_it_was_made_with(workspace: Workspace) -> None:
    lora = {"path": "/models/Neon Style.safetensors", "weight": 1.0, "parts": ""}
    add(workspace, 1, loras=[lora], seed=4711)
    add(workspace, 2, prompt="two blue rings", negative="blurry", sampler="dpmpp_2m", schedule="karras")
    add(workspace, 3, model="/models/dream.safetensors")
    Image.new("RGB", (8, 8)).save(workspace.pictures_dir / "00004-bare.png")
    album = Album(workspace)
    assert names(album, "neon RED") == [1]
    assert [names(album, text) for text in ("4711", "blurry karras", "DPM++ 2M", "dream", "64x96", "bare")] == [
        [1], [2], [2], [3], [3, 2, 1], [4],
    ]  # fmt: skip
    assert names(album, "neon blue") == []


def test_each_picture_is_read_once_and_the_index_outlives_the_page(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        add(workspace, number)
    read: list[str] = []
    real = album_module._settings
    monkeypatch.setattr(album_module, "_settings", lambda path: read.append(path.name) or real(path))
    album = Album(workspace)
    before = album.look()
    assert album.look() == before
    assert len(read) == 3
    index = workspace.cache_dir / "pictures.jsonl"
    index.write_text(index.read_text() + '{"torn": ')
    add(workspace, 4)
    again = Album(workspace)
    assert again.look() != before
    assert (names(again), read[3:]) == ([4, 3, 2, 1], ["00004-s7.png"])
    add(workspace, 2, prompt="made anew").touch()  # overwritten: another time
    assert names(again, "anew") == [2]


def test_a_look_takes_no_longer_than_it_may(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        add(workspace, number)
    clock = iter(range(1000))
    monkeypatch.setattr(album_module.time, "monotonic", lambda: next(clock) * album_module.READ_AT_ONCE_S)
    album = Album(workspace)
    first = album.look()
    page = album.page()
    assert (page.total, page.unread > 0, page.pictures[0].name) == (3, True, "00003-s7.png"), "the newest come first"
    for _ in range(3):
        album.look()
    assert album.look() != first
    assert (names(album), album.page().unread) == ([3, 2, 1], 0)


def test_favourites_are_kept_in_the_workspace(workspace: Workspace) -> None:
    path = add(workspace, 1)
    add(workspace, 2)
    content = path.read_bytes()
    album = Album(workspace)
    before = album.look()
    album.star([path.name], True)
    assert album.look() != before
    again = Album(workspace)
    assert names(again, favourites=True) == [1]
    assert path.read_bytes() == content
    item = again.throw_away([path.name])
    add(workspace, 1).touch()  # another picture of the same name is no favourite
    assert names(again, favourites=True) == []
    path.unlink()
    Bin(workspace.dir).restore(item.id)
    assert names(again, favourites=True) == [1]
    again.star([path.name], False)
    assert (again.page(favourites=True).pictures, again.page().favourites) == ([], 0)


def test_favourites_of_two_apps_are_all_kept(workspace: Workspace) -> None:
    paths = [add(workspace, number) for number in range(12)]
    together = threading.Barrier(len(paths))

    def star(path: Path) -> None:
        album = Album(workspace)
        together.wait()
        album.star([path.name], True)

    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(star, paths))
    assert sorted(names(Album(workspace), favourites=True)) == list(range(12))


def test_deleted_pictures_come_back_and_overwrite_nothing(workspace: Workspace) -> None:
    one, two = add(workspace, 1), add(workspace, 2)
    content = one.read_bytes()
    album, rubbish = Album(workspace), Bin(workspace.dir)
    item = album.throw_away([one.name, two.name])
    assert (names(album), item.title, item.size_bytes > 0) == ([], "2 pictures", True)
    newer = add(workspace, 1, prompt="a new one")
    rubbish.restore(item.id)
    assert sorted(path.name for path in workspace.pictures_dir.iterdir()) == [
        "00001-s7-2.png", "00001-s7.png", "00002-s7.png",
    ]  # fmt: skip
    assert (workspace.pictures_dir / "00001-s7-2.png").read_bytes() == content
    assert album.picture(newer.name).settings["prompt"] == "a new one"
    assert rubbish.items("pictures") == []
    album.throw_away([one.name])
    assert (rubbish.items("run"), rubbish.empty("run"), rubbish.empty("pictures") > 0) == ([], 0, True)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "missing.png", "", "link.png", ".hidden.png"])
def test_names_lead_nowhere_else(workspace: Workspace, name: str) -> None:
    add(workspace, 1)
    (workspace.dir / "outside.png").write_bytes(b"x")
    (workspace.pictures_dir / "link.png").symlink_to(workspace.dir / "outside.png")
    album = Album(workspace)
    for act in (album.picture, lambda name: album.star([name], True), lambda name: album.throw_away([name])):
        with pytest.raises(UserError, match="no picture"):
            act(name)
    assert (workspace.dir / "outside.png").exists()


def test_cards_tell_what_differs_from_the_usual(workspace: Workspace) -> None:
    lora = {"path": "/models/neon.safetensors", "weight": -0.75, "parts": "text_encoder:0"}
    add(workspace, 1, loras=[lora], clip_skip=2, weighted=True, steps=12, max_token_length=75)
    album = Album(workspace)
    (card,) = cards(album, workspace, album.page().pictures)
    assert card["url"].startswith("/atelier/pictures/00001-s7.png?v=") and card["small"].endswith("&thumbnail")
    told = dict(card["facts"])
    assert (told["LoRAs"], told["Sampler"], told["Size"]) == ("neon × -0.75 (text_encoder:0)", "Euler a", "64 × 96")
    assert (told["Clip skip"], told["Weighted"]) == ("2", "yes")
    assert "Max token length" not in told
    assert facts({}) == []
