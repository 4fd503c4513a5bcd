"""What the editor says of a picture is what training does with it, by the settings of the Train form."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from tests.unit.dataset_samples import noise_picture, write_picture
from trainer.config import Config, DatasetSettings
from trainer.config_io import parse_config
from trainer.data.buckets import Placement
from trainer.data.epoch import lay_out
from trainer.runs.store import Workspace
from trainer.single_file.tokenizer import write_tokenizer
from ui.context import AppContext
from ui.dataset.desk import DatasetDesk
from ui.dataset.filters import Query, matching
from ui.dataset.picture_facts import placements, questions
from ui.dataset.train_form import dataset_settings, model_settings
from ui.form import SchemaForm
from ui.train_view import save_last_form


@pytest.fixture
def desk(tmp_path: Path) -> DatasetDesk:
    return DatasetDesk(AppContext(Workspace(tmp_path)))


@pytest.fixture
def folder(desk: DatasetDesk) -> Path:
    return desk.workspace.datasets_dir / "cat"


def ask(desk: DatasetDesk, question: str, **asked: Any) -> dict[str, Any]:
    functions = {function.__name__: function for function in questions(desk)}
    return functions[question](asked)


def fill_form(desk: DatasetDesk, **values: Any) -> Config:
    config = parse_config(values)
    save_last_form(desk.context, snapshot_of(config))
    return config


def snapshot_of(config: Config) -> dict[str, Any]:
    with gr.Blocks():
        return SchemaForm().snapshot_of(config)


def test_the_train_form_is_read(desk: DatasetDesk) -> None:
    assert dataset_settings(desk.context) == DatasetSettings()
    config = fill_form(
        desk,
        model={"base": "/models/a"},
        dataset={"resolution": [[640, 512], [768, 768]], "buckets": {"step": 32, "upscale": True}},
    )
    assert dataset_settings(desk.context) == config.dataset
    assert model_settings(desk.context) == config.model
    snapshot = snapshot_of(config) | {"dataset.buckets.step": ["thirty"], "dataset.resolution": [None]}
    save_last_form(desk.context, snapshot)
    assert dataset_settings(desk.context) == DatasetSettings()


SIZES = [(900, 600), (333, 1001), (64, 64), (1023, 511), (5000, 700)]


@pytest.mark.parametrize("upscale", [True, False])
def test_the_box_is_what_training_cuts_out(desk: DatasetDesk, folder: Path, upscale: bool) -> None:
    """The placement of the trainer's own layout, EXIF rotation included, as shares of the upright picture."""
    for number, size in enumerate(SIZES):
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 2 else 1
        path = folder / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise_picture(*size, number).save(path, exif=exif)
    config = fill_form(
        desk, dataset={"sources": [{"path": str(folder)}], "resolution": 256, "buckets": {"upscale": upscale}}
    )
    for entry in lay_out(config).training:
        _, first, *others = ask(desk, "picture_facts", folder=str(folder), name=entry.picture.path.name)["placements"]
        assert first["own"] and not any(other["own"] for other in others)
        assert [other["resolution"] for other in others] == ["768", "1024"]
        placed = entry.placement
        assert (first["width"], first["height"]) == (placed.width, placed.height)
        assert pixels_of(first["box"], placed) == [
            placed.crop_left,
            placed.crop_top,
            placed.crop_left + placed.width,
            placed.crop_top + placed.height,
        ]
        left, top, right, bottom = first["box"]
        assert first["cut"] == pytest.approx(1 - (right - left) * (bottom - top))
        assert first["scale"] * entry.picture.width == pytest.approx(placed.scaled_width)


def pixels_of(box: list[float], placed: Placement) -> list[int]:
    sides = (placed.scaled_width, placed.scaled_height) * 2
    return [round(share * side) for share, side in zip(box, sides, strict=True)]


def test_buckets_are_filtered_by_with_the_step_of_the_form(desk: DatasetDesk, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    noise_picture(608, 416, 0).save(folder / "a.png")
    desk.memory.train_at(512)
    fill_form(desk, dataset={"buckets": {"step": 32}})
    placed = ask(desk, "picture_facts", folder=str(folder), name="a.png")["placements"][0]
    name = f"{placed['width']}x{placed['height']}"
    listing = desk.recent(folder)
    deadline = time.monotonic() + 60
    while not desk.facts(listing).sizes and time.monotonic() < deadline:  # sizes are read in the background
        time.sleep(0.02)
    found = matching(listing, Query(bucket=name), desk.facts(listing))
    assert (name, [entry.name for _, entry in found]) == ("608x416", ["a.png"])


def test_a_resolution_of_the_form_is_not_offered_twice() -> None:
    told = placements(DatasetSettings(resolution=[(768, 768), (640, 512)]), 800, 600, 512)
    assert [each["resolution"] for each in told] == ["512", "768", "640 × 512", "1024"]


@pytest.mark.parametrize(
    ("stored", "encoding"),
    [
        ("größe\n".encode(), ""),
        ("größe\r\nzwei".encode("utf-8-sig"), "UTF-8 with a byte order mark"),
        ("größe".encode("utf-16"), "UTF-16"),
        ("größe".encode("latin-1"), "probably Windows-1252"),
        (b"", ""),
    ],
)
def test_odd_encodings_are_told(desk: DatasetDesk, folder: Path, stored: bytes, encoding: str) -> None:
    write_picture(folder / "a.png")
    (folder / "a.txt").write_bytes(stored)
    assert ask(desk, "picture_facts", folder=str(folder), name="a.png")["encoding"] == encoding


def test_a_broken_picture_has_no_placement(desk: DatasetDesk, folder: Path) -> None:
    write_picture(folder / "a.png").write_bytes(b"nothing")
    answer = ask(desk, "picture_facts", folder=str(folder), name="a.png")
    assert answer["placements"] == [] and answer["size"] is None and answer["origins"] == []


def test_a_mask_comes_as_transparency(desk: DatasetDesk, folder: Path) -> None:
    write_picture(folder / "sub" / "a.png", 32, 24)
    grey = noise_picture(32, 24, 3).convert("L")
    (folder / ".atelier" / "masks" / "sub").mkdir(parents=True)
    grey.save(folder / ".atelier" / "masks" / "sub" / "a.png")
    answer = ask(desk, "mask_pixels", folder=str(folder), name="sub/a.png", origin="mask")
    image = Image.open(io.BytesIO(base64.b64decode(answer["url"].partition(",")[2])))
    assert np.array_equal(np.asarray(image.convert("RGBA"))[..., 3], np.asarray(grey))
    facts = ask(desk, "picture_facts", folder=str(folder), name="sub/a.png")
    assert facts["origins"] == ["mask"] and facts["mask"] > 0 and facts["size"] == (32, 24)


def test_nothing_outside_can_be_asked_for(desk: DatasetDesk, folder: Path, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_picture(elsewhere / "secret.png")
    write_picture(folder / "a.png")
    (folder / "a-masklabel.png").symlink_to(elsewhere / "secret.png")
    for asked in (
        {"folder": str(elsewhere), "name": "secret.png"},
        {"folder": str(folder), "name": str(elsewhere / "secret.png")},
        {"folder": str(folder), "name": "../../../x.png"},
        {"folder": str(folder), "name": 3},
        {"folder": str(folder)},
    ):
        assert set(ask(desk, "picture_facts", **asked)) == {"problem"}
    found = ask(desk, "mask_pixels", folder=str(folder), name="a.png", origin="onetrainer")
    assert "is not open to the page" in found["problem"]
    assert set(ask(desk, "mask_pixels", folder=str(folder), name="a.png", origin="../x")) == {"problem"}
    assert set(questions(desk)[0]("not even a mapping")) == {"problem"}


def test_tokens_are_counted_by_the_form_s_model(desk: DatasetDesk, tmp_path: Path) -> None:
    text = "a photo of a cat\n" + "hello world! " * 41
    told = ask(desk, "count_tokens", text=text)
    assert told["whose"] == "the demo model" and told["limit"] == 75 and told["first_only"]
    assert told["limits"] == (75, 150, 225)

    fill_form(desk, model={"base": "owner/model"}, dataset={"captions": {"max_token_length": 150, "wildcards": True}})
    told = ask(desk, "count_tokens", text=text)
    assert told["whose"] == "CLIP" and told["limit"] == 150 and not told["first_only"]
    assert [line["tokens"] for line in told["lines"]] == [5, 123]
    assert told["lines"][1]["cuts"][1:] == (None, None)

    write_tokenizer(tmp_path / "models" / "mine" / "tokenizer", pad_token="!", max_tokens=77)
    fill_form(desk, model={"base": str(tmp_path / "models" / "mine")})
    assert ask(desk, "count_tokens", text=text)["whose"] == "mine"

    (tmp_path / "models" / "other" / "tokenizer").mkdir(parents=True)
    fill_form(desk, model={"base": str(tmp_path / "models" / "other")})
    told = ask(desk, "count_tokens", text="a photo of a cat")
    assert told["whose"] == "" and told["lines"] == [{"tokens": 5, "cuts": ()}]
