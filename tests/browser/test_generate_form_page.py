"""The form of the Generate tab in a real browser: settings from a dropped picture, words, sizes, masks, the queue."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect

from tests.browser.example_runs import open_tab, write_example_lora
from tests.browser.test_accessibility import unfold_all
from tests.browser.test_accessibility_open import findings, findings_on_a_phone
from tests.browser.test_dataset_tab import eventually
from tests.browser.test_generate_tab import fill
from trainer.files import read_json
from trainer.inputs import keep_input
from trainer.lora.file import read_lora, write_lora
from trainer.pictures import read_settings, save_png
from trainer.runs.store import Workspace

DROP = """(target, [name, data]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
    for (const kind of ["dragover", "drop"]) {
        target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
    }
}"""


@pytest.fixture(scope="module")
def lora(workspace: Workspace) -> Path:
    """One whose file names its trigger word."""
    path = write_example_lora(workspace.models_dir / "neon.safetensors")
    file = read_lora(path)
    file.metadata["modelspec.trigger_phrase"] = "<i>ohwx</i> star, neon"
    file.metadata["ss_tag_frequency"] = '{"10_x": {"glow": 7}}'
    write_lora(path, file, precision="fp16")
    return path


def drop(page: Page, selector: str, path: Path) -> None:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    page.locator(selector).first.evaluate(DROP, [path.name, data])


def wait_for_picture(page: Page, workspace: Workspace, before: int) -> dict[str, Any]:
    """The settings of the picture that comes next."""
    expect(page.locator("#generate-history .open")).to_have_count(before + 1)
    return read_settings(max(workspace.pictures_dir.glob("*.png"), key=lambda path: path.stat().st_mtime_ns))


def star() -> Image.Image:
    image = Image.new("RGB", (128, 96), "navy")
    ImageDraw.Draw(image).rectangle((30, 20, 90, 70), fill="red")
    return image


def test_a_dropped_picture_brings_every_setting_back(
    page: Page, workspace: Workspace, lora: Path, tmp_path: Path
) -> None:
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
        "tiled_decoding": True,
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


def test_words_sizes_mask_and_queue(
    page: Page, workspace: Workspace, lora: Path, tmp_path: Path, shot: Callable[[str], Path]
) -> None:
    page.emulate_media(reduced_motion="reduce")
    save_png(star(), workspace.pictures_dir / "00900-s5.png", {"prompt": "a star", "seed": 5, "steps": 2})
    open_tab(page, "Generate")
    before = len(list(workspace.pictures_dir.glob("*.png")))
    expect(page.locator("#generate-history .open")).to_have_count(before)
    page.locator("#generate-history .card[data-name='00900-s5.png'] .open").click()
    page.locator("dialog[open]").get_by_role("button", name="Use these settings").click()
    prompt = page.locator("#generate-prompt textarea")
    expect(prompt).to_have_value("a star")
    page.locator("#generate-lora-0 input").fill(str(lora))
    page.keyboard.press("Enter")
    chip = page.locator("#generate-words").get_by_role("button", name="<i>ohwx</i> star, neon")
    chip.click()
    expect(prompt).to_have_value("a star, <i>ohwx</i> star, neon")
    chip.click()
    expect(prompt).to_have_value("a star")
    page.locator("#generate-size").get_by_role("button", name="2:3").click()
    expect(page.locator("#generate-width input")).to_have_value("104")
    page.locator("#generate-size").get_by_role("button", name="Swap").click()
    expect(page.locator("#generate-width input")).to_have_value("160")
    source = page.locator("#generate-source")
    source.get_by_text("Draw larger in a second pass").click()
    fill_number(page, "hires_scale", "1.5")
    expect(source.locator(".second")).to_contain_text("160 × 104 becomes 240 × 160.")

    # a mask over a picture that is dropped on its place, painted by hand
    plain = tmp_path / "plain.png"
    star().save(plain)
    drop(page, "#generate-source", plain)
    expect(source.locator(".frame img")).to_be_visible()
    expect(source.locator(".second")).to_contain_text("not one that starts from a picture")
    source.get_by_role("button", name="Paint a mask").click()
    box = source.locator(".pt-layer").bounding_box()
    assert box is not None
    assert findings(page) == []
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5, steps=4)
    page.mouse.up()
    source.get_by_role("button", name="Use this mask").click()
    expect(source.locator(".mask-over")).to_be_visible()
    fill(page, "steps", "2")
    page.locator("#generate").click()
    drawn = wait_for_picture(page, workspace, before)
    with Image.open(str(drawn["mask"])) as mask:
        grey = mask.convert("L")
        assert (grey.size, grey.getpixel((57, 48)), grey.getpixel((5, 5))) == ((128, 96), 255, 0)
    unfold_all(page)
    shot("generate-form")
    found = findings(page)

    # three requests: the last goes to the front, then all are cancelled
    source.get_by_role("button", name="Remove", exact=True).click()
    fill(page, "steps", "100")
    fill(page, "count", "16")
    waiting = page.locator("#generate-work .waiting li .prompt")
    for before_it, text in enumerate(("first", "second", "third")):
        fill(page, "prompt", text)
        page.locator("#generate").click()
        expect(page.locator("#generate-status")).to_contain_text("Drawing, step")
        expect(waiting).to_have_count(before_it)  # asked for, before the button is pressed again
    expect(waiting).to_have_text(["second", "third"])
    page.get_by_role("button", name="To the front: third").click()
    expect(waiting).to_have_text(["first", "second"])  # it gave way between two pictures
    expect(page.locator("#generate-work .live img")).to_be_visible()
    shot("generate-drawing")
    found += findings_on_a_phone(page)
    page.get_by_role("button", name="Cancel: second").click()
    expect(waiting).to_have_text(["first"])
    page.get_by_role("button", name="Cancel all").click()
    expect(waiting).to_have_count(0)
    expect(page.locator("#generate-cancel")).to_be_hidden()
    assert page.evaluate("window.hacked") is None
    assert found == [], "\n".join(found)


def fill_number(page: Page, name: str, text: str) -> None:
    box = page.locator(f"#source-{name}")
    box.fill(text)
    box.press("Tab")
