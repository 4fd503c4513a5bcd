"""Settings written into pictures come back, and what others wrote cannot do harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.unit.picture_samples import SETTINGS
from trainer.errors import UserError
from trainer.pictures import parse_settings, read_picture, read_settings, save_png


def picture() -> Image.Image:
    return Image.new("RGB", (8, 8), "red")


def png_with(path: Path, chunk: str, text: str) -> Path:
    info = PngInfo()
    info.add_text(chunk, text)
    picture().save(path, pnginfo=info)
    return path


def test_every_setting_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.png"
    save_png(picture(), path, SETTINGS | {"step": 100})
    assert read_settings(path) == SETTINGS
    assert list(path.parent.iterdir()) == [path]


def test_saving_is_deterministic(tmp_path: Path) -> None:
    save_png(picture(), tmp_path / "a.png", SETTINGS)
    save_png(picture(), tmp_path / "b.png", SETTINGS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def comment_in_exif(path: Path, comment: bytes) -> Path:
    exif = Image.Exif()
    exif[0x0131] = "some program"
    exif.get_ifd(0x8769)[0x9286] = comment
    picture().save(path, exif=exif)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.png"])
@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le"])
def test_settings_in_exif_are_read(tmp_path: Path, name: str, order: str) -> None:
    """As Civitai, and A1111 for JPEG, keep them."""
    text = "a fox, 絵\nNegative prompt: blurry\nSteps: 12, Sampler: Euler a, CFG scale: 5, Seed: 7, Model: dreamy_v2"
    found = read_picture(comment_in_exif(tmp_path / name, b"UNICODE\0" + text.encode(order)))
    assert (found.settings["prompt"], found.settings["seed"], found.model) == ("a fox, 絵", 7, "dreamy_v2")


@pytest.mark.parametrize("comment", [b"", b"UNICODE\0", b"ASCII\0\0\0Steps of a dance", b"\xff" * 9, b"UNICODE\0\xd8"])
def test_other_comments_are_no_settings(tmp_path: Path, comment: bytes) -> None:
    with pytest.raises(UserError, match="carries no settings"):
        read_settings(comment_in_exif(tmp_path / "a.jpg", comment))


def test_our_own_settings_come_before_the_text_for_others(tmp_path: Path) -> None:
    save_png(picture(), tmp_path / "a.png", SETTINGS)
    found = read_picture(tmp_path / "a.png")
    assert (found.settings, found.loras, found.unused) == (SETTINGS, (), ())


@pytest.mark.parametrize(
    "text",
    [
        "[" * 90_000,
        "x" * 200_000,
        '["a list"]',
        '{"steps": "many", "width": 100, "sampler": "__import__", "loras": [{"path": 3}], "seed": -1}',
        '{"prompt": {"$ref": 1}}',
        "\u0000\ud7ff{",
    ],
)
def test_hostile_text_is_no_settings(tmp_path: Path, text: str) -> None:
    path = png_with(tmp_path / "a.png", "lora_atelier", text)
    with pytest.raises(UserError, match="carries no settings"):
        read_settings(path)


def test_only_valid_values_survive(tmp_path: Path) -> None:
    path = png_with(tmp_path / "a.png", "lora_atelier", '{"prompt": "fox", "steps": 0, "width": 100, "other": 1}')
    assert read_settings(path) == {"prompt": "fox"}


def test_not_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("<script>")
    with pytest.raises(UserError, match="cannot be read as a picture"):
        read_settings(path)


def test_names_for_sampler_and_schedule_in_one(tmp_path: Path) -> None:
    """As our own pictures had them before schedules were a setting."""
    settings = parse_settings({"sampler": "dpmpp_2m_karras"})
    assert (settings.sampler, settings.schedule) == ("dpmpp_2m", "karras")
    path = png_with(tmp_path / "a.png", "lora_atelier", '{"sampler": "dpmpp_2m_karras", "steps": 5}')
    assert read_settings(path) == {"sampler": "dpmpp_2m", "steps": 5, "schedule": "karras"}


def test_a_schedule_that_the_sampler_cannot_follow() -> None:
    with pytest.raises(UserError) as error:
        parse_settings({"sampler": "euler_a", "schedule": "karras"})
    assert [p.field for p in error.value.problems] == ["schedule"]
    assert "model, uniform, sgm_uniform" in str(error.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        parse_settings({"width": 100, "steps": 0, "sampler": "magic", "loras": [{"path": "a", "weight": "x"}]})
    assert [p.field for p in error.value.problems] == ["width", "steps", "sampler", "loras.0.weight"]


def test_a_mask_needs_a_picture_and_a_second_pass_none() -> None:
    with pytest.raises(UserError) as error:
        parse_settings({"mask": "m.png", "strength": 1.1, "mask_blur": -1, "hires_scale": 9})
    assert [p.field for p in error.value.problems] == ["strength", "mask", "mask_blur", "hires_scale"]
    assert "give init_image too" in str(error.value)
    with pytest.raises(UserError, match="use 1 with init_image"):
        parse_settings({"init_image": "a.png", "hires_scale": 2})
    assert parse_settings({"init_image": "", "mask": "", "hires_scale": 2}).mask is None


def test_a_second_pass_has_bounds_and_whole_latent_cells() -> None:
    with pytest.raises(UserError, match=r"3 times 2048 is more than 4096 pixels; use 2 or less"):
        parse_settings({"width": 1024, "height": 2048, "hires_scale": 3})
    assert parse_settings({"hires_scale": 1.3}).enlarged((512, 640)) == (664, 832)
    with pytest.raises(UserError, match=r"width: 1001 is not a multiple of 8\. Use 1000 or 1008\."):
        parse_settings({"width": 1001})
