"""The form of the Generate tab: settings come out as they went in, by way of a picture's file."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any, get_args

import gradio as gr
import pytest
from PIL import Image

from trainer.config import CaptionLength, options
from trainer.errors import UserError
from trainer.pictures import PictureSettings, parse_settings, read_picture, save_png
from trainer.runs.store import Workspace
from trainer.sampler_names import Sampler, schedules_of
from ui.context import AppContext
from ui.generate.desk import LastUse
from ui.generate.form import Form
from ui.generate.source import SOURCE_FIELDS
from ui.lora_rows import ROWS

LETTERS = string.ascii_letters + " ,.:;()[]<>\"'\\{}%é絵🙂\n"


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    return AppContext(Workspace(tmp_path / "workspace"))


@pytest.fixture
def form(context: AppContext) -> Form:
    with gr.Blocks():
        return Form(context)


def random_settings(rnd: random.Random, context: AppContext) -> PictureSettings:
    """Valid settings in which every field may have any of its values."""
    start = rnd.random() < 0.5
    sampler = rnd.choice(get_args(Sampler))
    width, height = rnd.choice([None, rnd.randrange(64, 2049, 8)]), rnd.choice([None, rnd.randrange(64, 1025, 8)])
    values: dict[str, Any] = {
        "prompt": text(rnd),
        "negative": text(rnd),
        "width": width,
        "height": height,
        "steps": rnd.randint(1, 1000),
        "guidance": rnd.choice([0.0, 7.0, rnd.uniform(0, 100)]),
        "seed": rnd.choice([rnd.randrange(2**32), rnd.randrange(2**63)]),
        "sampler": sampler,
        "schedule": rnd.choice(schedules_of(sampler)),
        "model": rnd.choice(["demo", "some/model", "/models/dream.safetensors"]),
        "loras": [lora(rnd) for _ in range(rnd.randint(0, ROWS))],
        "clip_skip": rnd.randint(1, 12),
        "max_token_length": rnd.choice(list(options(CaptionLength))),
        "weighted": rnd.random() < 0.5,
        "tiled_decoding": rnd.random() < 0.5,
        "count": rnd.randint(1, 100),
        "batch_size": rnd.randint(1, 16),
        "strength": rnd.random(),
        "fit": rnd.choice(["crop", "resize", "pad"]),
        "mask_blur": rnd.randint(0, 64),
        "inpaint_area": rnd.choice(["whole", "masked"]),
        "mask_padding": rnd.randint(0, 512),
        "hires_steps": rnd.randint(0, 1000),
        "hires_strength": rnd.random(),
        "hires_upscaler": rnd.choice(["latent", "lanczos"]),
    }
    if start:
        values["init_image"] = str(picture(context, "start.png"))
        values["mask"] = rnd.choice([None, str(picture(context, "mask.png"))])
    else:
        values["hires_scale"] = rnd.choice([1.0, rnd.uniform(1, 2)])
    return parse_settings(values)


def text(rnd: random.Random) -> str:
    return "".join(rnd.choice(LETTERS) for _ in range(rnd.randint(0, 80)))


def lora(rnd: random.Random) -> dict[str, Any]:
    parts = rnd.choice(["", "text_encoder:0", "unet.mid_block:1.2,text_encoder:-0.5"])
    return {"path": f"/models/{rnd.randrange(99)} x.safetensors", "weight": rnd.uniform(-100, 100), "parts": parts}


def picture(context: AppContext, name: str) -> Path:
    path = context.workspace.inputs_dir / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 8), "white").save(path)
    return path


def held(update: Any) -> Any:
    """What a component holds after an update."""
    return update["value"] if isinstance(update, dict) and "__type__" in update else update


def read_back(form: Form, shown: list[Any]) -> PictureSettings:
    count = len(form.inputs)
    given, rows, _ = form.read([held(each) for each in shown[:count]])
    loras = [{"path": row.file, "weight": row.weight, "parts": row.parts} for row in rows]
    return parse_settings({**given, "loras": loras})


def test_every_setting_of_a_picture_comes_back_by_its_file_and_the_form(
    context: AppContext, form: Form, tmp_path: Path
) -> None:
    rnd = random.Random(20)
    told: dict[str, set[str]] = {}
    for _ in range(50):
        settings = random_settings(rnd, context)
        save_png(Image.new("RGB", (8, 8)), tmp_path / "picture.png", settings.model_dump())
        found = parse_settings(read_picture(tmp_path / "picture.png").settings)
        assert found == settings
        last = LastUse.model_validate_json(LastUse(settings=found, new_seed=False).model_dump_json())
        assert read_back(form, form.show(last)) == settings
        for name, value in settings.model_dump().items():
            told.setdefault(name, set()).add(repr(value))
    assert [name for name in PictureSettings.model_fields if len(told[name]) < 2] == [], "a field was never tried"


def test_fields_hold_what_the_browser_sends_back(form: Form) -> None:
    """Gradio refuses numbers beyond a slider's ends, and the browser rounds integers of more than 53 bits."""
    settings = parse_settings({"steps": 900, "count": 100, "guidance": 55.5, "batch_size": 16, "seed": 2**63 - 1})
    shown = dict(zip(form.fields, form.show(LastUse(settings=settings)), strict=False))
    for name in ("steps", "count", "guidance", "batch_size"):
        assert shown[name]["maximum"] >= shown[name]["value"]
    assert shown["seed"] == str(2**63 - 1)
    small = dict(zip(form.fields, form.show(LastUse()), strict=False))
    assert (small["steps"]["maximum"], small["count"]["maximum"]) == (100, 16)


def test_each_setting_has_one_place(form: Form) -> None:
    placed = [*form.fields, *SOURCE_FIELDS, "loras"]
    assert sorted(placed) == sorted(PictureSettings.model_fields)


def test_pictures_to_start_from_are_checked(context: AppContext, form: Form, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    Image.new("RGB", (8, 8)).save(outside)
    for path, words in ((outside, "not open to the page"), (context.workspace.inputs_dir / "gone.png", "not there")):
        with pytest.raises(UserError, match=words):
            form.source.read({"settings": json.dumps({"init_image": str(path)})})
    for broken in (None, {}, {"settings": "no json"}, {"settings": "[1]"}):
        assert form.source.read(broken)["init_image"] is None
    assert set(form.source.read({"settings": '{"prompt": "smuggled"}'})) == set(SOURCE_FIELDS)


def test_a_picture_to_start_from_brings_its_transparent_part_as_mask(context: AppContext, form: Form) -> None:
    image = Image.new("RGBA", (16, 8), "red")
    image.putpixel((3, 2), (0, 0, 0, 0))
    settings = form.source.start_from({"hires_scale": 2.0, "strength": 0.3}, image)
    assert (settings["hires_scale"], settings["strength"]) == (1.0, 0.3)
    assert Path(settings["init_image"]).parent == context.workspace.inputs_dir
    with Image.open(settings["mask"]) as mask:
        assert mask.convert("L").getbbox() == (3, 2, 4, 3)
    assert form.source.start_from({}, Image.new("RGB", (16, 8)))["mask"] is None
