"""What the editor's scripts ask to be done to one picture: only within the open folder, and only what is whole."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.requests import Request

from tests.unit.dataset_samples import write_picture
from trainer.curation.crops import Box, read_crops
from trainer.errors import UserError
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.dataset.desk import DatasetDesk
from ui.dataset.editor import FULL_PX, cut_picture, full_picture, keep_crop, remove_mask, save_mask


@pytest.fixture
def desk(tmp_path: Path) -> DatasetDesk:
    return DatasetDesk(AppContext(Workspace(tmp_path / "workspace")))


@pytest.fixture
def folder(desk: DatasetDesk) -> Path:
    folder = desk.workspace.datasets_dir / "cat"
    write_picture(folder / "a.png", 40, 30)
    return folder


def png(width: int, height: int) -> str:
    out = io.BytesIO()
    Image.new("RGBA", (width, height), "white").save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def view_of(folder: Path) -> dict[str, Any]:
    return {"folder": str(folder)}


def full(desk: DatasetDesk, folder: Path, name: str) -> Any:
    query = f"folder={folder}&name={name}".encode()
    return full_picture(desk, Request({"type": "http", "query_string": query, "headers": []}))


def test_masks_come_and_go(desk: DatasetDesk, folder: Path) -> None:
    shown = save_mask(desk, view_of(folder), {"name": "a.png", "png": png(40, 30)})
    mask = folder / ".atelier" / "masks" / "a.png"
    assert shown.view["done"] == "a.png" and shown.undo == "mask of a.png"
    assert Image.open(mask).size == (40, 30)
    assert remove_mask(desk, view_of(folder), {"name": "a.png"}).view["done"] == "a.png"
    assert not mask.exists()
    with pytest.raises(UserError, match="40 x 30"):
        save_mask(desk, view_of(folder), {"name": "a.png", "png": png(41, 30)})


def test_boxes_come_and_go(desk: DatasetDesk, folder: Path) -> None:
    keep_crop(desk, view_of(folder), {"name": "a.png", "box": [0, 0.5, 0.5, 1]})
    assert read_crops(desk.workspace, folder) == {"a.png": Box(0, 0.5, 0.5, 1)}
    keep_crop(desk, view_of(folder), {"name": "a.png", "box": None})
    assert read_crops(desk.workspace, folder) == {}
    for box in ("x", [1], [0, 0, 2, 2], [0.5, 0, 0.5, 1], [0, 0, float("nan"), 1], {"left": 0}):
        for act in (keep_crop, cut_picture):
            with pytest.raises(UserError) as caught:
                act(desk, view_of(folder), {"name": "a.png", "box": box})
            assert caught.value.problems[0].code == "crop.box"
    cut_picture(desk, view_of(folder), {"name": "a.png", "box": [0, 0.5, 0.5, 1]})
    assert Image.open(folder / "a.png").size == (20, 15)


@pytest.mark.parametrize("name", ["../dog/b.png", "/etc/passwd", "nothing.png", "", "a.png/../../dog/b.png"])
def test_only_pictures_of_the_folder(desk: DatasetDesk, folder: Path, name: str) -> None:
    write_picture(folder.parent / "dog" / "b.png", 40, 30)
    for act, more in ((save_mask, {"png": png(40, 30)}), (remove_mask, {}), (keep_crop, {"box": None})):
        with pytest.raises(UserError, match="not in the folder"):
            act(desk, view_of(folder), {"name": name, **more})
    assert full(desk, folder, name).status_code == 404


@pytest.mark.parametrize("link", [".atelier", ".atelier/masks", ".atelier/new", ".atelier/aside"])
def test_links_out_are_not_followed(desk: DatasetDesk, folder: Path, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(outside)
    for act, more in ((save_mask, {"png": png(40, 30)}), (remove_mask, {}), (cut_picture, {"box": [0, 0, 0.5, 0.5]})):
        with pytest.raises(UserError, match="not open to the page"):
            act(desk, view_of(folder), {"name": "a.png", **more})
    assert list(outside.iterdir()) == []
    assert full(desk, outside, "a.png").status_code == 404


def test_the_full_picture_is_upright_and_bounded(desk: DatasetDesk, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5000, 100), "red").save(folder / "wide.jpg", exif=exif)
    answer = full(desk, folder, "wide.jpg")
    assert answer.media_type == "image/webp"
    assert Image.open(io.BytesIO(answer.body)).size == (82, FULL_PX)
    assert Image.open(io.BytesIO(full(desk, folder, "a.png").body)).size == (40, 30)
    (folder / "a.png").write_bytes(b"broken")
    assert full(desk, folder, "a.png").status_code == 404
