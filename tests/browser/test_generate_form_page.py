"""The form of the Generate tab in a real browser: a dropped picture brings back every setting that it was made with."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect

from tests.browser.conftest import App
from tests.browser.example_runs import open_tab, write_example_lora
from tests.browser.test_dataset_tab import eventually
from trainer.files import read_json
from trainer.inputs import keep_input
from trainer.pictures import save_png
from trainer.runs.store import Workspace
from trainer.studio import Studio

DROP = """(target, [name, data]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
    for (const kind of ["dragover", "drop"]) {
        target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
    }
}"""


@pytest.fixture(scope="module")
def workspace(app: App) -> Iterator[Workspace]:
    workspace = Workspace(app.workspace)
    yield workspace
    Studio(workspace, 1).let_go()


def drop(page: Page, selector: str, path: Path) -> None:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    page.locator(selector).first.evaluate(DROP, [path.name, data])


def star() -> Image.Image:
    image = Image.new("RGB", (128, 96), "navy")
    ImageDraw.Draw(image).rectangle((30, 20, 90, 70), fill="red")
    return image


def test_a_dropped_picture_brings_every_setting_back(page: Page, workspace: Workspace, tmp_path: Path) -> None:
    lora = write_example_lora(workspace.models_dir / "neon.safetensors")
    mask = Image.new("L", (128, 96))
    mask.paste(255, (40, 30, 80, 60))
    settings: dict[str, Any] = {
        "prompt": "a red star, (neon:1.3) <b>x</b> ${y}\nsecond line",
        "negative": 'blurry: "very"',
        "width": 136,
        "height": 104,
        "steps": 3,
        "guidance": 4.321,
        "seed": 2**62 + 1,
        "sampler": "dpmpp_2m",
        "schedule": "karras",
        "model": "demo",
        "loras": [{"path": str(lora), "weight": -2.345, "parts": "text_encoder:0"}],
        "clip_skip": 2,
        "max_token_length": 150,
        "weighted": True,
        "count": 1,
        "batch_size": 2,
        "init_image": str(keep_input(workspace, star())),
        "strength": 0.6789,
        "fit": "pad",
        "mask": str(keep_input(workspace, mask)),
        "mask_blur": 7,
        "inpaint_area": "masked",
        "mask_padding": 51,
        "hires_scale": 1.0,
        "hires_steps": 9,
        "hires_strength": 0.6543,
        "hires_upscaler": "lanczos",
    }
    save_png(star(), tmp_path / "dropped.png", settings)
    open_tab(page, "Generate")
    drop(page, "#generate-prompt", tmp_path / "dropped.png")
    expect(page.locator("#generate-seed input")).to_have_value(str(2**62 + 1))
    expect(page.locator("#generate-source .mask-over")).to_be_visible()
    expect(page.locator("#generate-new-seed input")).not_to_be_checked()
    page.locator("#generate").click()
    asked = workspace.dir / "last_generate.json"
    eventually(asked.is_file)
    assert read_json(asked)["settings"] == settings
