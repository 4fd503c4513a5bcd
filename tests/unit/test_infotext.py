"""The text in which other programs keep settings: ours is written as they read it, theirs is read as they meant it."""

# ruff: noqa: E501  (texts as they are found)

from __future__ import annotations

import time

import pytest

from tests.unit.picture_samples import SETTINGS
from trainer.infotext import Infotext, NamedLora, read_infotext, write_infotext
from trainer.pictures import parse_settings

FILES = ("init_image", "mask")
UNTOLD = ("max_token_length", "weighted", "count", "batch_size", "fit")
"""Settings that A1111 has no value for."""
SECOND_PASS = {"hires_scale": 1.5, "hires_steps": 9, "hires_strength": 0.65, "hires_upscaler": "lanczos"}
OURS = {name: value for name, value in SETTINGS.items() if name not in (*UNTOLD, *SECOND_PASS)} | {
    "model": "/models/demo, second.safetensors"
}


def test_the_text_is_what_a1111_writes() -> None:
    plain = OURS | {"prompt": "a red star", "negative": "blurry", "seed": 7}
    assert write_infotext(plain) == (
        "a red star <lora:neon style:-0.75>\nNegative prompt: blurry\n"
        "Steps: 12, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4.5, Seed: 7, Size: 128x192, "
        'Model: "demo, second.safetensors", Clip skip: 2, Denoising strength: 0.4, Mask blur: 7, Inpaint area: Only masked, '
        "Masked area padding: 48, Version: LoRA Atelier"
    )
    without = {name: value for name, value in plain.items() if name not in FILES}
    assert write_infotext(without).endswith("Clip skip: 2, Version: LoRA Atelier")
    assert write_infotext(without | SECOND_PASS).endswith(
        "Clip skip: 2, Denoising strength: 0.65, Hires upscale: 1.5, Hires steps: 9, Hires upscaler: Lanczos, "
        "Version: LoRA Atelier"
    )


def test_our_own_text_is_read_back() -> None:
    read = read_infotext(write_infotext(OURS))
    kept = {name: value for name, value in OURS.items() if name not in ("loras", "model", *FILES)}
    assert read.settings == kept
    again = read_infotext(write_infotext(kept | SECOND_PASS))
    starts = ("strength", "mask_blur", "mask_padding", "inpaint_area")
    assert again.settings == {name: value for name, value in kept.items() if name not in starts} | SECOND_PASS
    assert read.loras == (NamedLora("neon style", -0.75),)
    assert (read.model, read.unused) == ("demo, second.safetensors", ())


@pytest.mark.parametrize("schedule", ["model", "uniform"])
def test_our_own_schedule_is_not_guessed(schedule: str) -> None:
    settings = {"prompt": "a", "steps": 5, "sampler": "euler", "schedule": schedule}
    assert read_infotext(write_infotext(settings)).settings == settings | {"negative": ""}


OTHERS: list[tuple[str, str, Infotext]] = [
    (
        "A1111 1.5 with a high-resolution pass, ControlNet and block weights",
        "masterpiece, (1girl:1.2), window,<lora:BlueArchive10:1,0,0,0,1,1>,BlueArchive,\nNegative prompt: Neg1,Negative,\n"
        "Steps: 20, Sampler: DPM++ 2M SDE Karras, CFG scale: 7, Seed: 2647703743, Size: 768x768, Model hash: 72bd94132e, "
        'Model: CuteMix, Denoising strength: 0.7, ControlNet 0: "preprocessor: openpose, model: control_v11p [cab727d4], '
        'starting/ending: (0, 1), params: (512, 64, 64)", Hires upscale: 2, Hires upscaler: Latent, '
        'TI hashes: "Neg1: 339cc9210f70", Version: v1.5.1',
        Infotext(
            {
                "prompt": "masterpiece, (1girl:1.2), window,,BlueArchive,",
                "negative": "Neg1,Negative,",
                "steps": 20,
                "guidance": 7.0,
                "seed": 2647703743,
                "sampler": "dpmpp_2m_sde",
                "schedule": "karras",
                "width": 768,
                "height": 768,
                "hires_scale": 2.0,
                "hires_strength": 0.7,
                "hires_upscaler": "latent",
                "weighted": True,
            },
            (NamedLora("BlueArchive10", 1.0),),
            "CuteMix",
            (
                "ControlNet 0: preprocessor: openpose, model: control_v11p [cab727d4], "
                "starting/ending: (0, 1), params: (512, 64, 64)",
                "TI hashes: Neg1: 339cc9210f70",
            ),
        ),
    ),
    (
        "A1111 1.10 with a schedule of its own, and LoRA strengths for text encoder and UNet",
        "portrait <lora:ink:0.4:0.7> <lora:line:te=0:unet=0.5>\nNegative prompt: blur\n"
        "Steps: 27, Sampler: Euler, Schedule type: SGM Uniform, CFG scale: 6.5, Seed: 9007199254740993, Size: 768x1024, "
        'Clip skip: 2, Lora hashes: "ink: 50b3f6a2ecf7, line: 1", Version: v1.10.1',
        Infotext(
            {
                "prompt": "portrait",
                "negative": "blur",
                "steps": 27,
                "guidance": 6.5,
                "seed": 9007199254740993,
                "clip_skip": 2,
                "sampler": "euler",
                "schedule": "sgm_uniform",
                "width": 768,
                "height": 1024,
            },
            (NamedLora("ink", 0.7, "BASE:0.4"), NamedLora("line", 0.5, "BASE:0")),
        ),
    ),
    (
        "A1111 1.9, automatic schedule, emphasis off",
        "a [blue|red] cat\nSteps: 20, Sampler: DPM++ 2M SDE, Schedule type: Automatic, CFG scale: 7, Seed: 1, "
        "Size: 512x512, Emphasis: None, Version: v1.9.4",
        Infotext(
            {
                "prompt": "a [blue|red] cat",
                "negative": "",
                "steps": 20,
                "guidance": 7.0,
                "seed": 1,
                "sampler": "dpmpp_2m_sde",
                "schedule": "exponential",
                "width": 512,
                "height": 512,
            }
        ),
    ),
    (
        "A1111 of 2022: no version, no schedule, a seed for the noise between steps",
        "oil painting of a fox\nSteps: 50, Sampler: LMS, CFG scale: 7.5, Seed: 3, Size: 512x640, "
        "Model hash: 7460a6fa, ENSD: 31337, First pass size: 0x0",
        Infotext(
            {
                "prompt": "oil painting of a fox",
                "negative": "",
                "steps": 50,
                "guidance": 7.5,
                "seed": 3,
                "sampler": "lms",
                "schedule": "uniform",
                "width": 512,
                "height": 640,
            },
            unused=("ENSD: 31337", "First pass size: 0x0"),
        ),
    ),
    (
        "Forge",
        "a (red:1.3) cat\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 1, "
        "Distilled CFG Scale: 3.5, Seed: 5, Size: 896x1152, Model hash: d4c, Model: flux1-dev, Module 1: ae, "
        "Version: f2.0.1v1.10.1-previous-664-gd557aef9",
        Infotext(
            {
                "prompt": "a (red:1.3) cat",
                "negative": "",
                "steps": 20,
                "guidance": 1.0,
                "seed": 5,
                "sampler": "euler_a",
                "schedule": "uniform",
                "width": 896,
                "height": 1152,
                "weighted": True,
            },
            model="flux1-dev",
            unused=("Distilled CFG Scale: 3.5", "Module 1: ae"),
        ),
    ),
    (
        "Civitai's own generator: prompts on one line, resources as JSON",
        "fog, a vintage car, BLACK blue color GRADIENT Negative prompt: text, logo Steps: 23, Sampler: DPM++ 2M Karras, "
        "CFG scale: 3.5, Seed: 1760020955, Size: 832x1216, Clip skip: 2, Created Date: 2025-11-28T09:18:43.5269343Z, "
        'Civitai resources: [{"type":"checkpoint","modelVersionId":24424,"modelName":"A, B"},{"type":"lora","weight":1}], '
        "Civitai metadata: {}",
        Infotext(
            {
                "prompt": "fog, a vintage car, BLACK blue color GRADIENT",
                "negative": "text, logo",
                "steps": 23,
                "guidance": 3.5,
                "seed": 1760020955,
                "clip_skip": 2,
                "sampler": "dpmpp_2m",
                "schedule": "karras",
                "width": 832,
                "height": 1216,
            }
        ),
    ),
    (
        "SD.Next: other order, an app of its own",
        "a lighthouse\nNegative prompt: people\nSteps: 30, Size: 1024x1024, Sampler: UniPC, Seed: 12, CFG scale: 6, "
        "App: SD.Next, Version: 2024-10-23, Pipeline: StableDiffusionXLPipeline, Operations: txt2img, Model: juggernautXL",
        Infotext(
            {
                "prompt": "a lighthouse",
                "negative": "people",
                "steps": 30,
                "guidance": 6.0,
                "seed": 12,
                "sampler": "unipc",
                "schedule": "model",
                "width": 1024,
                "height": 1024,
            },
            model="juggernautXL",
            unused=("Operations: txt2img",),
        ),
    ),
    (
        "Fooocus in A1111's scheme",
        "a castle on a hill\nNegative prompt: \nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 77, Size: 1152x896, "
        "CFG scale: 4.0, Sharpness: 2.0, Version: Fooocus v2.5.5",
        Infotext(
            {
                "prompt": "a castle on a hill",
                "negative": "",
                "steps": 30,
                "guidance": 4.0,
                "seed": 77,
                "sampler": "dpmpp_2m_sde",
                "schedule": "karras",
                "width": 1152,
                "height": 896,
            },
            unused=("Sharpness: 2.0",),
        ),
    ),
    (
        "a node of ComfyUI: values over two lines, resources with names",
        "1girl, pink sweater, ultra-detailed ,\nNegative prompt: lazyneg, (painting, sketch),\n"
        "Steps: 30, Sampler: dpmpp_2m_sde_gpu_karras, CFG scale: 4.5, Seed: 639466906728691, Size: 1216x832,\n"
        "Clip skip: 2, Model hash: BB2C170125, Model: JAN4realish, Version: ComfyUI,\n"
        'Civitai resources: [{"modelName":"Lazy (Positive, Negative)","weight":1.0}]',
        Infotext(
            {
                "prompt": "1girl, pink sweater, ultra-detailed ,",
                "negative": "lazyneg, (painting, sketch),",
                "steps": 30,
                "guidance": 4.5,
                "seed": 639466906728691,
                "clip_skip": 2,
                "sampler": "dpmpp_2m_sde",
                "schedule": "karras",
                "width": 1216,
                "height": 832,
                "weighted": True,
            },
            model="JAN4realish",
        ),
    ),
    (
        "a prompt longer than one chunk, Windows line ends, a sampler that is not here",
        ("word, " * 60)
        + "\r\nNegative prompt: bad,\r\nSteps: 6, Sampler: Restart, CFG scale: 2, Seed: 8, Size: 832x1216",
        Infotext(
            {
                "prompt": ("word, " * 60).strip(),
                "negative": "bad,",
                "steps": 6,
                "guidance": 2.0,
                "seed": 8,
                "width": 832,
                "height": 1216,
                "max_token_length": 150,
            },
            unused=("Sampler: Restart",),
        ),
    ),
    (
        "lines within the prompts, the words of the format among them, a hypernet",
        "Steps: to heaven, a staircase\nsunset, Size: huge <hypernet:old:1>\nNegative prompt: lowres,\nbad anatomy\n"
        "Steps: 28, Sampler: Heun, CFG scale: 7, Seed: 30, Size: 512x768, Version: v1.6.0, Eta: 0.2, RNG: CPU, Tiling: False",
        Infotext(
            {
                "prompt": "Steps: to heaven, a staircase\nsunset, Size: huge",
                "negative": "lowres,\nbad anatomy",
                "steps": 28,
                "guidance": 7.0,
                "seed": 30,
                "sampler": "heun",
                "schedule": "uniform",
                "width": 512,
                "height": 768,
            },
            unused=("Eta: 0.2", "RNG: CPU"),
        ),
    ),
]


SECOND_STARTS: list[tuple[str, dict[str, object], tuple[str, ...]]] = [
    (
        "Denoising strength: 0.35, Hires upscale: 1.5, Hires steps: 12, Hires upscaler: 4x-UltraSharp",
        {"hires_scale": 1.5, "hires_steps": 12, "hires_strength": 0.35, "hires_upscaler": "lanczos"},
        ("Hires upscaler: 4x-UltraSharp",),
    ),
    (
        "Denoising strength: 0.7, Hires resize: 768x0, Hires upscaler: Latent (bicubic antialiased)",
        {"hires_scale": 1.5, "hires_strength": 0.7, "hires_upscaler": "latent"},
        ("Hires upscaler: Latent (bicubic antialiased)",),
    ),
    (
        "Denoising strength: 0.44, Mask blur: 7, Inpaint area: Only masked, Masked area padding: 48, Masked content: fill",
        {"strength": 0.44, "mask_blur": 7, "inpaint_area": "masked", "mask_padding": 48},
        ("Masked content: fill",),
    ),
    ("Denoising strength: 0.75", {"strength": 0.75}, ()),
    ("Denoising strength: nan, Hires upscale: inf, Hires resize: 0x0, Mask blur: a lot", {}, ()),
]


@pytest.mark.parametrize(("told", "expected", "unused"), SECOND_STARTS)
def test_second_passes_and_masks_of_a1111(told: str, expected: dict[str, object], unused: tuple[str, ...]) -> None:
    read = read_infotext(
        f"a fox\nSteps: 20, Sampler: DDIM, CFG scale: 7, Seed: 5, Size: 512x640, {told}, Version: v1.9.4"
    )
    plain = ("prompt", "negative", "steps", "guidance", "seed", "sampler", "schedule", "width", "height")
    assert {name: value for name, value in read.settings.items() if name not in plain} == expected
    assert read.unused == unused
    parse_settings(read.settings)


def test_that_it_was_decoded_in_tiles_comes_back() -> None:
    text = write_infotext({"prompt": "a fox", "steps": 20, "tiled_decoding": True})
    read = read_infotext(text)
    assert "Tiled decoding: True" in text and read.settings["tiled_decoding"] is True and not read.unused
    assert "Tiled" not in write_infotext({"prompt": "a fox", "steps": 20, "tiled_decoding": False})


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in OTHERS], ids=[case[0] for case in OTHERS])
def test_texts_of_other_programs(text: str, expected: Infotext) -> None:
    read = read_infotext(text)
    assert read == expected
    parse_settings(read.settings)


@pytest.mark.parametrize(
    "text", ["", "just a comment", "Steps: many, Sampler: Euler", '{"steps": 3}', "Negative prompt: x"]
)
def test_texts_of_another_kind(text: str) -> None:
    assert read_infotext(text) == Infotext({})


@pytest.mark.parametrize(
    "text",
    [
        "Steps: 20, " * 9_000,
        "Steps: 20, A: " + '"' * 90_000,
        "Steps: 20, " + "A" * 90_000,
        "Steps: 20, A: " + "[" * 90_000,
        "<lora:" * 15_000 + "\nSteps: 20, CFG scale: nan, Seed: 1e999, Size: axb",
        "Negative prompt:" * 6_000 + " Steps: 20, ",
        " " * 90_000 + "Steps: 20,",
    ],
)
def test_hostile_texts_end_soon(text: str) -> None:
    begun = time.process_time()
    settings = read_infotext(text).settings
    assert time.process_time() - begun < 2
    assert settings["steps"] == 20
    assert "guidance" not in settings
