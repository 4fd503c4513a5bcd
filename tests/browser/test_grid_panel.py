"""Grids on the page: a 5 x 5 that survives a reload and the ends of both processes, and what is done with it."""

from __future__ import annotations

import io
import os
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, expect_to_fit, frozen, wait_until_open
from tests.browser.example_runs import example_run, open_tab, write_example_lora
from trainer.grids.store import Grid, grids
from trainer.pictures import read_settings
from trainer.runs.store import Workspace
from trainer.studio import Studio

CELLS = "#grid-sheet .cell"


def open_panel(page: Page) -> None:
    open_tab(page, "Generate")
    fold = page.locator("#grid-panel > button")
    if "open" not in (fold.get_attribute("class") or ""):
        fold.click()
    expect(page.locator("#grid-axes fieldset")).to_have_count(3)


def type_into(page: Page, selector: str, text: str) -> None:
    box = page.locator(selector).first
    box.fill(text)
    box.press("Tab")


def choose_axis(page: Page, axis: str, kind: str, values: str) -> None:
    page.locator(f"#grid-axes [data-axis={axis}] select").select_option(label=kind)
    if values:
        page.locator(f"#grid-axes [data-axis={axis}] .values").locator("input, textarea").last.fill(values)


def draw(page: Page, title: str) -> None:
    """Start a grid and wait until it is the one that is shown."""
    page.get_by_role("button", name="Draw the grid").click()
    expect(page.locator("#grid-sheet h3")).to_have_text(title)


def newest(workspace: Workspace) -> Grid:
    return grids(workspace)[0]


def test_five_by_five_survives_everything(
    app: App, page: Page, workspace: Workspace, shot: Callable[[str], Path]
) -> None:
    open_panel(page)
    type_into(page, "#generate-prompt textarea", "a red star on a blue background")
    type_into(page, "#generate-steps input[type=number]", "4")
    choose_axis(page, "x", "Seed", "1-5, x")
    choose_axis(page, "y", "Guidance", "1-9 [5]")
    expect(page.locator("#grid-axes [data-axis=x] .problems")).to_contain_text("'x' is not a number or a range")
    choose_axis(page, "x", "Seed", "1-5")
    expect(page.locator("#grid-axes .words")).to_contain_text("25 pictures (5 × 5)")
    draw(page, "Seed × Guidance")
    expect(page.locator(CELLS).nth(2)).to_be_attached()

    pid = Studio(workspace, 1).info().pid
    assert pid is not None
    with frozen(pid):  # else it might be done before the page is open again
        page.reload()
        wait_until_open(page)
        open_panel(page)
        expect(page.locator(CELLS).nth(2)).to_be_attached()
        os.kill(pid, signal.SIGKILL)
    app.restart()
    grid = newest(workspace)
    assert 3 <= grid.progress(grid.read().spec).drawn < 25

    page.goto(app.url)
    wait_until_open(page)
    open_panel(page)
    expect(page.locator(CELLS)).to_have_count(25)
    expect(page.locator("#grid-sheet .words")).to_have_text("25 pictures.")
    with page.expect_download() as sheet:
        page.get_by_role("link", name="Save the sheet").click()
    assert min(Image.open(sheet.value.path()).size) > 5 * 128
    reply = page.request.get(f"{app.url}/atelier/grids/{grid.id}/grid.zip")
    with zipfile.ZipFile(io.BytesIO(reply.body())) as packed:
        assert packed.testzip() is None
        assert len([name for name in packed.namelist() if name.startswith("cells/")]) == 25
    shot("grid")

    # A cell opens large with its values, arrows lead on, and its settings go into the form
    page.locator(CELLS).first.click()
    viewer = page.locator("dialog[open]")
    expect(viewer).to_contain_text("Seed: 1 · Guidance: 1")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(viewer).to_contain_text("Seed: 2 · Guidance: 3")
    viewer.get_by_text("Settings", exact=True).click()
    expect(viewer.locator("dd", has_text="a red star on a blue background")).to_be_visible()
    viewer.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#generate-seed input")).to_have_value("2")
    expect(page.locator("#generate-guidance input[type=number]")).to_have_value("3")
    page.set_viewport_size({"width": 390, "height": 844})
    expect_to_fit(page)
    shot("grid-390")
    page.set_viewport_size({"width": 1440, "height": 1000})


def test_checkpoints_of_a_run_at_weights(page: Page, workspace: Workspace, shot: Callable[[str], Path]) -> None:
    """From the run's button; a cell that fails says why; cancelled, gone on with, and deleted."""
    run = example_run(workspace, "my-character", steps=8)
    for step in (2, 4):
        folder = run.checkpoints_dir / f"step-{step:06d}"
        write_example_lora(folder / "lora.safetensors", seed=step)
        (folder / "manifest.json").write_text("{}")
    (run.checkpoints_dir / "step-000004" / "lora.safetensors").write_bytes(b"broken")
    open_tab(page, "Runs")
    page.locator(".run-item", has_text="my-character").click()
    page.locator("#run-grid").click()
    expect(page.locator("#grid-axes [data-axis=x] .chip")).to_have_count(3)
    type_into(page, "#generate-prompt textarea", "a small yellow ring")
    type_into(page, "#generate-steps input[type=number]", "40")
    choose_axis(page, "z", "Sampler", "")
    page.locator("#grid-axes [data-axis=z] .names").get_by_role("button", name="Euler", exact=True).click()
    page.locator("#grid-axes [data-axis=z] .names").get_by_role("button", name="LCM", exact=True).click()
    expect(page.locator("#grid-axes .words")).to_contain_text("30 pictures (3 × 5 × 2)")
    draw(page, "LoRA × LoRA weight × Sampler")
    expect(page.locator(CELLS).nth(1)).to_be_attached()
    page.get_by_role("button", name="Cancel the grid").click()
    expect(page.locator("#grid-sheet .words")).to_contain_text("Stopped: ")
    grid = newest(workspace)
    drawn = grid.progress(grid.read().spec).drawn
    assert 2 <= drawn < 20

    type_into(page, "#generate-steps input[type=number]", "1")
    choose_axis(page, "y", "Nothing", "")
    draw(page, "LoRA × Sampler")
    expect(page.locator("#grid-sheet .failed")).to_contain_text("lora.safetensors")
    expect(page.locator(CELLS)).to_have_count(2)
    page.locator("#grid-sheet .sheets").get_by_role("button", name="LCM").click()
    expect(page.locator(CELLS)).to_have_count(2)
    expect(page.locator("#grid-sheet .words")).to_contain_text("2 could not be drawn")
    grid = newest(workspace)
    settings = [read_settings(path) for path in sorted(grid.cells_dir.glob("0-0-*.png"))]
    assert [each["sampler"] for each in settings] == ["euler", "lcm"]
    assert settings[0]["loras"][0]["path"].endswith("step-000002/lora.safetensors")
    shot("grid-failed")

    write_example_lora(run.checkpoints_dir / "step-000004" / "lora.safetensors", seed=4)
    page.get_by_role("button", name="Try the failed ones again").click()
    expect(page.locator(CELLS)).to_have_count(3)
    expect(page.locator("#grid-sheet .words")).to_have_text("6 pictures.")
    page.locator("#grid-sheet").get_by_role("button", name="Delete").click()
    page.locator("#grid-sheet").get_by_role("button", name="Move to the bin").click()
    expect(page.locator("#grid-sheet .words")).to_contain_text("Stopped: ")
    assert not grid.dir.exists()
    assert len(list((workspace.dir / "bin").glob("*/content/grid.json"))) == 1
