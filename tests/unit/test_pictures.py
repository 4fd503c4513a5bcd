"""Settings written into pictures come back, and what others wrote cannot do harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trainer.config import Sampler, options
from trainer.errors import UserError
from trainer.pictures import SAMPLER_NAMES, a1111_text, parse_a1111, parse_settings, read_settings, save_png

SETTINGS: dict[str, Any] = {
    "prompt": "a red star, (neon:1.3), naïve “quotes” 絵\nsecond line",
    "negative": "blurry: very, ugly",
    "width": 128,
    "height": 192,
    "steps": 12,
    "guidance": 4.5,
    "seed": 2**63 - 1,
    "sampler": "dpmpp_2m_karras",
    "model": "demo",
    "loras": [{"path": "/somewhere/neon style.safetensors", "weight": -0.75, "parts": "text_encoder:0"}],
    "clip_skip": 2,
    "max_token_length": 150,
    "weighted": True,
    "count": 3,
}


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


def test_a1111_text_is_what_a1111_writes() -> None:
    plain = SETTINGS | {"prompt": "a red star", "negative": "blurry", "seed": 7}
    assert a1111_text(plain) == (
        "a red star <lora:neon style:-0.75>\nNegative prompt: blurry\n"
        "Steps: 12, Sampler: DPM++ 2M Karras, CFG scale: 4.5, Seed: 7, Size: 128x192, Model: demo, Clip skip: 2, "
        "Version: LoRA Atelier"
    )


def test_our_a1111_text_is_read_back(tmp_path: Path) -> None:
    path = png_with(tmp_path / "a.png", "parameters", a1111_text(SETTINGS))
    unsaid = ("loras", "model", "count", "max_token_length", "weighted")
    expected = {name: SETTINGS[name] for name in SETTINGS if name not in unsaid}
    assert read_settings(path) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "masterpiece, 1girl <lora:foo:0.8>, smile\nNegative prompt: lowres,\nbad anatomy\n"
            "Steps: 28, Sampler: Euler a, CFG scale: 7, Seed: 3071434413, Size: 512x768, Model hash: 6ce0161689, "
            'Model: v1-5, Clip skip: 2, Lora hashes: "foo: 1a2b, bar: 3c4d", Version: v1.9.4',
            {
                "prompt": "masterpiece, 1girl, smile",
                "negative": "lowres,\nbad anatomy",
                "steps": 28,
                "sampler": "euler_a",
                "guidance": 7.0,
                "seed": 3071434413,
                "width": 512,
                "height": 768,
                "clip_skip": 2,
            },
        ),
        (
            "cat\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 1, Size: 1024x1024",
            {
                "prompt": "cat",
                "negative": "",
                "steps": 20,
                "sampler": "dpmpp_2m_karras",
                "guidance": 6.5,
                "seed": 1,
                "width": 1024,
                "height": 1024,
            },
        ),
        (
            "a (red:1.3) cat\nSteps: 20, Version: f2.0.1",
            {"prompt": "a (red:1.3) cat", "negative": "", "steps": 20, "weighted": True},
        ),
        ("Steps: 20, Sampler: LMS, CFG scale: x, Seed: , Size: 512", {"steps": 20, "width": 512, "prompt": ""}),
        ("just a comment", {}),
        ("", {}),
    ],
)
def test_reads_other_tools_text(text: str, expected: dict[str, Any]) -> None:
    found = parse_a1111(text)
    assert {name: value for name, value in found.items() if name in expected or value} == expected


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


def test_control_characters_stay_out_of_the_text(tmp_path: Path) -> None:
    save_png(picture(), tmp_path / "a.png", {"prompt": "a\x00b\ud800c", "steps": 5})
    assert parse_a1111(Image.open(tmp_path / "a.png").info["parameters"])["prompt"] == "ab?c"


def test_every_sampler_has_a_name() -> None:
    assert tuple(SAMPLER_NAMES) == options(Sampler)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        parse_settings({"width": 100, "steps": 0, "sampler": "magic", "loras": [{"path": "a", "weight": "x"}]})
    assert [p.field for p in error.value.problems] == ["width", "steps", "sampler", "loras.0.weight"]
