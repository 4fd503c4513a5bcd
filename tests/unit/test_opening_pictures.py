"""Which files are opened as pictures: by what is in them, and never with the help of another program."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import EpsImagePlugin, Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.security.odd_files import ENDLESS_POSTSCRIPT
from trainer.config import Source
from trainer.curation.doctor.look import look_at
from trainer.curation.doctor.salvage import readable_part
from trainer.curation.fixes.names import rename_ending
from trainer.data import image_files
from trainer.data.folders import collect_source
from trainer.errors import UserError
from trainer.inputs import read_input
from trainer.pictures import read_picture
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.media import add_routes


@pytest.fixture(autouse=True)
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in Ghostscript's place; the file is there once it was started."""
    (folder := tmp_path / "bin").mkdir()
    mark = tmp_path / "started"
    program = folder / "gs"
    program.write_text(f"#!/bin/sh\n: > '{mark}'\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for it once
    return mark


@pytest.fixture(params=["png", "jpg", "webp"])
def postscript(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """PostScript by the name of a picture."""
    path = tmp_path / "pictures" / f"a.{request.param}"
    path.parent.mkdir()
    path.write_bytes(ENDLESS_POSTSCRIPT)
    return path


def test_pillow_by_itself_starts_it(postscript: Path, ghostscript: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError), Image.open(postscript) as image:
        image.load()
    assert ghostscript.exists()


READERS: dict[str, Callable[[Path], Any]] = {
    "size": image_files.read_size,
    "preview": lambda path: image_files.read_preview(path, 64),
    "pixels": lambda path: image_files.read_rgb(path.read_bytes()),
    "mask": lambda path: image_files.read_grey(path.read_bytes()),
    "transparency": lambda path: image_files.read_alpha(path.read_bytes()),
    "everything": lambda path: image_files.read_full(path.read_bytes()),
    "settings": read_picture,
    "picture to start from": lambda path: read_input(path, "init_image"),
    "ending": lambda path: list(rename_ending(path.parent, path.name)),
}


@pytest.mark.parametrize("name", READERS)
def test_postscript_is_no_picture(name: str, postscript: Path, ghostscript: Path) -> None:
    with pytest.raises((*image_files.PICTURE_ERRORS, UserError)):
        READERS[name](postscript)
    assert not ghostscript.exists()


def test_it_is_named_and_left_out_of_a_data_set(postscript: Path, ghostscript: Path) -> None:
    found, _ = collect_source(0, Source(path=str(postscript.parent)), ".txt")
    assert [skipped.path for skipped in found.skipped] == [postscript] and not found.pictures
    assert look_at(postscript).error and readable_part(postscript.read_bytes()) is None
    assert not ghostscript.exists()


def test_no_small_version_is_made_of_it(postscript: Path, ghostscript: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    context = AppContext(workspace)
    add_routes(context)
    app = Starlette(routes=context.page.routes)
    answer = TestClient(app).get(f"/atelier/pictures/{postscript.name}?thumbnail")
    assert answer.status_code == 404
    assert not ghostscript.exists()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "MPO", "AVIF"])
def test_these_are_pictures_whatever_their_name(kind: str, tmp_path: Path) -> None:
    if kind == "AVIF" and not image_files.READS_AVIF:
        pytest.skip("this Pillow reads no AVIF")
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 6), "red").save(path, kind, **({"save_all": True} if kind == "MPO" else {}))
    assert image_files.read_size(path) == (8, 6)
    with image_files.open_picture(path) as image:
        assert image.format == kind or (kind, image.format) == ("MPO", "JPEG")


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "ICNS", "PDF", "DDS", "IM", "XBM"])
def test_these_are_not(kind: str, tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("1" if kind == "XBM" else "RGB", (32, 32)).save(out, kind)
    path = tmp_path / "a.png"
    path.write_bytes(out.getvalue())
    with pytest.raises(image_files.PICTURE_ERRORS):
        image_files.read_size(path)
