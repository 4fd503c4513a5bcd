"""The Generate tab in a real browser with the real model process."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, expect

from tests.browser.conftest import dismiss, toast
from tests.browser.example_runs import example_run, open_tab, write_example_lora
from trainer.pictures import read_settings
from trainer.runs.store import Run, Workspace


@pytest.fixture(scope="module")
def run(workspace: Workspace) -> Run:
    write_example_lora(workspace.models_dir / "second.safetensors", seed=2)
    return example_run(workspace, "my-character", steps=8)


def fill(page: Page, field: str, text: str) -> None:
    box = page.locator(
        f"#generate-{field} textarea, #generate-{field} input[type=number], #generate-{field} input"
    ).first
    box.fill(text)
    box.press("Tab")


def make(page: Page, workspace: Workspace, pictures: int) -> list[Path]:
    """Press Generate and wait until the workspace holds so many pictures."""
    page.locator("#generate").click()
    expect(page.locator("#generate-history .open")).to_have_count(pictures, timeout=120_000)
    return sorted(workspace.pictures_dir.glob("*.png"))


def test_from_a_run_to_pictures_at_two_weights(
    page: Page, run: Run, workspace: Workspace, shot: Callable[[str], Path]
) -> None:
    open_tab(page, "Runs")
    page.locator(".run-item", has_text="my-character").click()
    page.locator("#run-generate").click()
    expect(page.locator("#generate-lora-0 input")).to_have_value(re.compile("my-character"))
    fill(page, "prompt", "a red star on a blue background")
    fill(page, "steps", "4")
    page.locator("#generate-new-seed input").uncheck()
    fill(page, "seed", "7")
    first = make(page, workspace, 1)[0]
    weight = page.locator("#generate-weight-0 input[type=number]")
    weight.fill("-1.5")
    weight.press("Enter")
    second = make(page, workspace, 2)[1]
    assert Image.open(first).tobytes() != Image.open(second).tobytes()
    settings = read_settings(second)
    assert (settings["seed"], settings["steps"]) == (7, 4)
    assert settings["loras"] == [{"path": str(run.output_path), "weight": -1.5, "parts": ""}]
    expect(page.locator("#generate-result [data-large] img")).to_have_count(1)
    shot("generate")

    page.reload()
    open_tab(page, "Generate")
    expect(page.locator("#generate-prompt textarea")).to_have_value("a red star on a blue background")
    expect(page.locator("#generate-weight-0 input[type=number]")).to_have_value("-1.5")
    expect(page.locator("#generate-lora-0 input")).to_have_value(re.compile("my-character"))
    expect(page.locator("#generate-history .open")).to_have_count(2)


def test_two_loras_count_and_settings_back_from_a_picture(page: Page, run: Run, workspace: Workspace) -> None:
    open_tab(page, "Generate")
    expect(page.locator("#generate-lora-0 input")).to_have_value(re.compile("my-character"))
    before = len(list(workspace.pictures_dir.glob("*.png")))
    page.locator("#generate-add-lora").click()
    page.locator("#generate-lora-1 input").fill(str(workspace.models_dir / "second.safetensors"))
    page.keyboard.press("Enter")
    fill(page, "count", "2")
    fill(page, "prompt", "a small yellow ring")
    page.get_by_role("button", name="More settings").locator("visible=true").click()
    page.locator("#generate-weighted input").check()
    page.locator("#generate-max-token-length input").click()
    page.get_by_role("option", name="150").click()
    newest = make(page, workspace, before + 2)[-1]
    assert (read_settings(newest)["max_token_length"], read_settings(newest)["weighted"]) == (150, True)
    assert [Path(use["path"]).stem for use in read_settings(newest)["loras"]] == ["my-character", "second"]

    page.locator("#generate-history .open").last.click()  # the oldest one
    page.locator("dialog[open]").get_by_role("button", name="Use these settings").click()
    expect(page.locator("#generate-prompt textarea")).to_have_value("a red star on a blue background")
    expect(page.locator("#generate-lora-1")).to_be_hidden()
    expect(page.locator("#generate-weighted input")).not_to_be_checked()
    expect(page.locator("#generate-max-token-length input")).to_have_value("75")
    open_picture(page, newest)
    expect(page.locator("#generate-prompt textarea")).to_have_value("a small yellow ring")
    expect(page.locator("#generate-lora-1 input")).to_have_value("second")
    expect(page.locator("#generate-seed input")).to_have_value(str(read_settings(newest)["seed"]))
    expect(page.locator("#generate-weighted input")).to_be_checked()
    expect(page.locator("#generate-max-token-length input")).to_have_value("150")


def test_cancel(page: Page, workspace: Workspace) -> None:
    open_tab(page, "Generate")
    before = len(list(workspace.pictures_dir.glob("*.png")))
    fill(page, "prompt", "a very slow star")
    fill(page, "steps", "100")
    fill(page, "count", "16")
    page.evaluate("() => { for (let press = 0; press < 3; press++) document.querySelector('#generate').click(); }")
    expect(page.locator("#generate-status")).to_contain_text("Drawing, step", timeout=60_000)
    waiting = page.locator("#generate-work .waiting")
    expect(waiting.get_by_role("listitem")).to_have_count(2)  # each press counts, however quick
    waiting.get_by_role("button", name="Cancel all").click()
    expect(page.locator("#generate-status")).to_contain_text("Cancelled", timeout=60_000)
    expect(page.locator("#generate-cancel")).to_be_hidden()
    expect(waiting).to_be_hidden()
    assert len(list(workspace.pictures_dir.glob("*.png"))) < before + 16


def test_problems_are_told(page: Page, tmp_path: Path) -> None:
    open_tab(page, "Generate")
    fill(page, "prompt", "a star")
    elsewhere = tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes(b"x")
    page.locator("#generate-lora-0 input").fill(str(elsewhere))
    page.keyboard.press("Enter")
    page.locator("#generate").click()
    dismiss(page, "is not open to the page")
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    open_picture(page, plain)
    expect(toast(page, "carries no settings")).to_be_visible()


def test_a_picture_of_another_program(page: Page, workspace: Workspace, tmp_path: Path) -> None:
    """Its LoRAs and model are looked for by name; what it says beyond our settings is told."""
    write_example_lora(workspace.models_dir / "second.safetensors", seed=2)
    open_tab(page, "Generate")
    info = PngInfo()
    info.add_text(
        "parameters",
        "a (neon:1.2) star <lora:Second:0.5> <lora:lost one:1>\nNegative prompt: blurry\nSteps: 7, "
        "Sampler: DPM++ 2M SDE Karras, CFG scale: 3, Seed: 11, Size: 64x72, Model: <i>x</i>, Hires upscale: 2, "
        "Tiny face fix: CodeFormer",
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "theirs.png", pnginfo=info)
    open_picture(page, tmp_path / "theirs.png")
    expect(toast(page, "Not on this machine: lost one; <i>x</i>")).to_be_visible()
    expect(toast(page, "Not used here: Tiny face fix: CodeFormer")).to_be_visible()
    expect(page.locator("#generate-prompt textarea")).to_have_value(re.compile("neon:1.2"))
    expect(page.locator("#generate-lora-0 input")).to_have_value("second")
    expect(page.locator("#source-hires_scale")).to_have_value("2")
    page.get_by_role("button", name="More settings").locator("visible=true").click()
    expect(page.locator("#generate-sampler input")).to_have_value("DPM++ 2M SDE")
    expect(page.locator("#generate-schedule input")).to_have_value("Karras")
    page.locator("#generate-sampler input").click()
    page.get_by_role("option", name="Euler a").click()
    expect(page.locator("#generate-schedule input")).to_have_value("The model's own")


def open_picture(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#generate-open").click()
    chooser.value.set_files(path)
