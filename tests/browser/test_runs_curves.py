"""Curves, previews and comparison on the Runs tab: what is drawn, read, zoomed, saved, and what a long run costs."""

from __future__ import annotations

import json
import logging
import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import MEASURES, App, expect_to_fit, wait_until_open
from tests.browser.example_runs import example_run, metrics, open_tab, tell
from trainer.config import Config
from trainer.runs.store import Run, Workspace

EVENTS = 100_000
STEPS_WITH_PICTURES = 50
PROMPTS = 10
OPEN_SECONDS = 3.0
DELAY_MS = 200.0
INPUT_DELAY = """() => new Promise(done => {
    const box = document.querySelector("#run-charts input[type=checkbox]");
    const begun = performance.now();
    const drawn = () => requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
    box.addEventListener("change", drawn, { once: true });
    box.click();
})"""
"""Milliseconds from a click on "Log scale" until its drawing is on the screen."""
SHOWN = """() => document.querySelector("#run-head h2")?.textContent === "long"
    && document.querySelectorAll("#run-charts .band").length > 1
    && [...document.querySelectorAll("#sample-wall img")].some(image => image.complete && image.naturalWidth)"""
SCROLL = """async node => {
    for (let left = 0; left < 6000; left += 300) {
        node.scrollLeft = left;
        await new Promise(requestAnimationFrame);
    }
}"""


@pytest.fixture(scope="module")
def runs(workspace: Workspace) -> list[Run]:
    """Two runs of other settings: one with validation and losses that are no numbers, one that was resumed."""
    first, second = example_run(workspace, "plain"), example_run(workspace, "resumed", "stopped", steps=80)
    tell(first, *[{"type": "validation", "step": step, "loss": 0.1 - step / 4000} for step in range(0, 121, 20)])
    tell(second, {"type": "state", "state": "training", "step": 60}, *metrics(second, 61, 90))
    tell(second, {"type": "metric", "step": 91, "loss": "nan", "spread": 2.5}, *metrics(second, 92, 99))
    second.config_path.write_text(second.config_path.read_text().replace("rank: 16", "rank: 4"))
    (first.samples_dir / "step-000030-p01-s42.png").unlink()
    return [first, second]


def choose(page: Page, name: str) -> None:
    open_tab(page, "Runs")
    page.locator(".run-item", has_text=name).first.click()
    expect(page.locator("#run-head h2")).to_have_text(name)


def charts(page: Page) -> Locator:
    return page.locator("#run-charts")


def line(page: Page, kind: str) -> Locator:
    return charts(page).locator(f".chart.large .line.{kind}")


def labels_below(page: Page) -> Locator:
    return charts(page).locator(".chart.large .below span")


def test_curves(page: Page, runs: list[Run], tmp_path: Path, shot: Callable[[str], Path]) -> None:
    choose(page, "resumed")
    bar = charts(page).locator(".chart-bar")
    expect(line(page, "before")).to_have_attribute("data-points", "20")
    expect(charts(page).locator(".chart.large .keys")).to_contain_text("before it was resumed")
    expect(line(page, "raw")).to_have_attribute("data-points", "98")
    expect(charts(page).locator(".chart.small .enlarge", has_text="Spread")).to_be_visible()

    smooth = str(line(page, "smooth").get_attribute("d"))
    bar.get_by_label("Smoothing").press("End")
    expect(line(page, "smooth")).not_to_have_attribute("d", smooth)
    bar.get_by_role("button", name="usual").click()
    expect(line(page, "smooth")).to_have_attribute("d", smooth)
    raw = str(line(page, "raw").get_attribute("d"))
    bar.get_by_text("Log scale").click()
    expect(line(page, "raw")).not_to_have_attribute("d", raw)
    bar.get_by_label("Axis").select_option("time")
    expect(labels_below(page).last).to_contain_text(re.compile(r"\d s$"))

    bar.get_by_label("Axis").select_option("step")
    bar.get_by_text("Log scale").click()
    drawing = charts(page).locator(".chart.large .drawing")
    drawing.focus()
    drawing.press("Home")
    expect(charts(page).locator("[role=status]")).to_contain_text(re.compile(r"step 1, loss 0\.\d+, smoothed 0\.\d+"))
    drawing.press("End")
    drawing.press("+")
    expect(line(page, "raw")).to_have_attribute("data-points", re.compile(r"^(49|50)$"))
    choose(page, "plain")
    expect(line(page, "validation")).to_have_attribute("data-points", "2")  # of steps 60 and 80: the zoom stays
    drawing.press("Escape")
    expect(line(page, "validation")).to_have_attribute("data-points", "7")

    charts(page).get_by_role("button", name="Learning rate").click()
    expect(charts(page).locator(".chart.large figcaption b")).to_have_text("Learning rate")
    charts(page).get_by_label("Curve", exact=True).select_option("loss")
    charts(page).get_by_text("Figures").click()
    expect(charts(page).locator("tbody tr", has_text="Loss").first).to_contain_text("0.")
    shot("runs-curves")
    for kind in ("CSV", "SVG", "PNG"):
        with page.expect_download() as download:
            bar.get_by_text(kind, exact=True).click()
        download.value.save_as(tmp_path / f"curve.{kind.lower()}")
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 121
    assert "each step" in (tmp_path / "curve.svg").read_text()
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (2400, 1120) and len(image.convert("RGB").getcolors(10**6) or []) > 50


def test_previews(page: Page, runs: list[Run], shot: Callable[[str], Path]) -> None:
    choose(page, "plain")
    wall = page.locator("#sample-wall")
    expect(wall.locator(".sw-picture")).to_have_count(9)
    expect(wall.get_by_text("The file is missing")).to_have_count(1)
    wall.get_by_label("Arrange previews").select_option("one")
    expect(wall.locator("figcaption")).to_have_text(["before", "step 120"] * 2)
    wall.get_by_role("button", name="Earlier step").click()
    expect(wall.locator("figcaption")).to_have_text(["before", "step 90"] * 2)
    wall.get_by_label("Beside the start").uncheck()
    expect(wall.locator("figcaption")).to_have_text(["step 90"] * 2)
    wall.locator(".sw-ones .sw-picture").first.click()
    dialog = page.get_by_role("dialog", name="Preview picture")
    for key, caption in (
        ("ArrowRight", "Step 120: a red star"),
        ("ArrowDown", "Step 120: a small yellow ring <b>on</b>"),
    ):
        page.keyboard.press(key)
        expect(dialog).to_contain_text(caption)
    page.keyboard.press("b")
    expect(dialog.locator("img")).to_have_count(2)
    expect(dialog.get_by_alt_text("Before training")).to_be_visible()
    dialog.get_by_text("Settings", exact=True).click()
    expect(dialog.locator(".sw-facts")).to_contain_text("seed42")
    shot("runs-preview-large")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_comparing(page: Page, app: App, runs: list[Run], shot: Callable[[str], Path]) -> None:
    choose(page, "plain")
    comparison = page.locator("#run-compare")
    page.get_by_label("Compare plain").check()
    page.locator(".run-item", has_text="resumed").click(modifiers=["Shift"])
    expect(comparison.get_by_role("heading", name="Comparing 2 runs")).to_be_visible()
    expect(page.locator("#run-head")).to_be_hidden()
    expect(comparison.locator(".chart.large .line.smooth")).to_have_count(2)
    expect(comparison.get_by_role("row", name="Rank 16 4")).to_be_visible()
    expect(comparison.get_by_role("row", name="Best validation loss 0.07 at step 120")).to_be_visible()
    expect(comparison.locator("tbody tr[title]")).to_have_count(1)
    expect(comparison.locator("figcaption", has_text="resumed, step 80")).to_have_count(2)
    comparison.get_by_label("Step of the previews").press("Home")
    expect(comparison.locator("figcaption", has_text="resumed, before")).to_have_count(2)
    comparison.locator(".legend").get_by_role("button", name="plain").click()
    expect(comparison.locator(".chart.large .line.smooth")).to_have_count(1)
    shot("runs-compared")

    page.goto(page.url)  # the address is all another browser needs
    wait_until_open(page)
    expect(comparison.locator(".chart.large .line.smooth")).to_have_count(2)
    expect(page.get_by_label("Compare resumed")).to_be_checked()
    page.set_viewport_size({"width": 390, "height": 844})
    expect_to_fit(page)
    shot("runs-compared-phone")
    page.set_viewport_size({"width": 1440, "height": 1000})
    comparison.get_by_role("button", name="Close comparison").click()
    expect(page.locator("#run-head")).to_be_visible()
    assert "compare" not in page.url


def make_long(workspace: Workspace) -> Run:
    """100,000 metric events and 500 pictures of 512 pixels a side."""
    run = workspace.create_run(Config(name="long"))
    draw = random.Random(0)
    begun = run.read().created
    with run.events_path.open("w") as file:
        for step in range(1, EVENTS + 1):
            numbers = {"loss": 0.1 + draw.gauss(0, 0.02), "lr": 1e-4, "grad_norm": draw.random(), "step_ms": 300.0}
            event = {"time": begun + step * 0.3, "type": "metric", "step": step, **numbers, "vram_bytes": 8_000_000_000}
            file.write(json.dumps(event) + "\n")
    for number in range(STEPS_WITH_PICTURES):
        for prompt in range(PROMPTS):
            step = number * 2000
            name = f"step-{step:06d}-p{prompt:02d}-s42.png"
            Image.new("RGB", (512, 512), (number * 5, prompt * 25, 90)).save(run.samples_dir / name)
            sample = {"path": f"samples/{name}", "prompt": f"prompt number {prompt}", "seed": 42}
            tell(run, {"type": "sample", "step": step, **sample})
    run.update(state="finished", step=EVENTS, max_steps=EVENTS)
    return run


@pytest.mark.skipif(not MEASURES, reason="measures: set LORA_ATELIER_MEASURE on an idle machine")
def test_a_long_run(page: Page, app: App, workspace: Workspace) -> None:
    """The limits are those of an idle machine; medians, since others may be at work."""
    example_run(workspace, "short")
    run = make_long(workspace)
    opening, delays = [], []
    app.restart()  # the first opening reads the whole file
    page.goto(app.url)
    wait_until_open(page)
    for _ in range(3):
        choose(page, "short")
        begun = time.perf_counter()
        page.locator(f".run-item[data-pick='{run.id}']").click()
        page.wait_for_function(SHOWN)
        opening.append(time.perf_counter() - begun)
        delays += [float(page.evaluate(INPUT_DELAY)) for _ in range(4)]
    page.locator("#sample-wall .sw-scroll").evaluate(SCROLL)
    delays += [float(page.evaluate(INPUT_DELAY)) for _ in range(4)]
    logging.getLogger("tests").warning(
        f"{EVENTS} events, {STEPS_WITH_PICTURES * PROMPTS} pictures: opened in {statistics.median(opening):.2f} s "
        f"({min(opening):.2f} to {max(opening):.2f}, the first reads the file: {opening[0]:.2f}); input answered in "
        f"{statistics.median(delays):.0f} ms ({min(delays):.0f} to {max(delays):.0f})"
    )
    assert statistics.median(opening) < OPEN_SECONDS
    assert statistics.median(delays) < DELAY_MS
