"""The plan before a start, on the real page of a pretended GPU: memory, fixes and their undo, pictures with crops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App
from tests.browser.conftest import app as app_fixture


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app on a machine that has 8 GB for training, as a user can say too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_ATELIER_MEMORY", "8GB")
        yield from app_fixture.__wrapped__(tmp_path_factory)  # type: ignore[attr-defined]


@pytest.fixture
def report(page: Page, app: App) -> Locator:
    """The plan of eight pictures, two of them wide, for SD 1.5 with a batch of all."""
    folder = app.workspace / "datasets" / "set"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(8):
        name = f"{number} <i>" if number > 5 else f"{number}"
        Image.new("RGB", (256 if number > 5 else 128, 128), (30 * number, 90, 120)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("a plain square")
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(page.locator("#step-maths")).not_to_be_empty()
    page.get_by_role("button", name="Settings as text").click()
    page.locator("#yaml textarea").fill(
        f"{{model: {{base: somebody/sd15}}, dataset: {{sources: [{{path: {folder}}}], buckets: {{enabled: false}}}}, "
        "train: {batch_size: 8}, samples: {prompts: [a square]}}"
    )
    page.locator("#apply-yaml").click()
    expect(page.locator("#field-train-batch_size input, #field-train-batch_size textarea")).to_have_value("8")
    expect(page.locator("#step-maths")).to_contain_text("8 pictures / 8 a step")
    page.locator("#check").click()
    found = page.locator("#plan-report")
    expect(found).to_contain_text("does not fit into the memory", timeout=120_000)
    return found


def test_fixes_are_applied_and_taken_back(page: Page, report: Locator, shot: Callable[[str], Path]) -> None:
    checkpointing = page.locator("#field-train-gradient_checkpointing input")
    expect(report.locator(".memory")).to_contain_text("on a GPU with 8 GB")
    shot("plan-too-large")
    report.get_by_role("button", name="Gradient checkpointing for all layers").click()
    expect(report).to_contain_text("Changed: Gradient checkpointing for all layers")
    expect(report).not_to_contain_text("does not fit into the memory")
    expect(checkpointing).to_have_value("all")
    report.get_by_role("button", name="Undo").click()
    expect(report).to_contain_text("does not fit into the memory")
    expect(checkpointing).to_have_value("off")
    report.get_by_role("button", name="Fit to this memory").click()
    expect(report).to_contain_text("Changed: fitted to the memory")
    batch = page.locator("#field-train-batch_size input, #field-train-batch_size textarea")
    expect(batch).to_have_value("4")
    expect(page.locator("#step-maths")).to_contain_text("8 pictures / 8 a step")
    report.locator("summary", has_text="What if").click()
    report.get_by_role("row", name="model as it is, checkpointing").get_by_role("button").first.click()
    expect(batch).to_have_value("1")


def test_pictures_of_a_bucket_show_what_is_cut_off(page: Page, report: Locator, shot: Callable[[str], Path]) -> None:
    report.get_by_role("button", name="512 × 512").click()
    pictures = report.locator(".grid img")
    expect(pictures).to_have_count(8)
    page.wait_for_function(
        "() => [...document.querySelectorAll('#plan-report .grid img')].every((each) => each.naturalWidth)"
    )
    expect(report.locator(".grid")).to_contain_text("6 <i>.png")
    kept, whole = report.locator(".kept"), report.locator(".frame:has(.kept)")
    expect(kept).to_have_count(2)
    inner, outer = kept.first.bounding_box(), whole.first.bounding_box()
    assert inner and outer and inner["width"] == pytest.approx(outer["width"] / 2, abs=2)
    assert inner["x"] - outer["x"] == pytest.approx(outer["width"] / 4, abs=2)
    report.locator("summary", has_text="2 pictures cropped a lot").click()
    expect(report.locator("details[data-opens='note:cropped'] li")).to_have_count(2)
    shot("plan-pictures")


def test_steps_are_measured_on_request(page: Page, report: Locator) -> None:
    box = page.locator("#yaml textarea")
    box.fill(
        box.input_value().replace("base: somebody/sd15", "base: demo").replace("resolution: 512", "resolution: 64")
    )
    page.locator("#apply-yaml").click()
    expect(page.locator("#field-model-base textarea, #field-model-base input")).to_have_value("demo")
    page.locator("#check").click()
    expect(report).not_to_contain_text("does not fit")  # the plan before is gone
    expect(report).to_contain_text("not known yet")
    report.get_by_role("button", name="Measure: train a few steps").click()
    expect(report.get_by_role("button", name="Cancel")).to_be_visible()
    expect(report).to_contain_text("ms a step, measured in a short measurement", timeout=240_000)
