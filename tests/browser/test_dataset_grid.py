"""The grid of pictures: filters, selecting over pages, keys, and what 10,000 pictures cost."""

from __future__ import annotations

import json
import logging
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import MEASURES, App, expect_to_fit, wait_until_open
from tests.browser.test_dataset_tab import cards, eventually, field, make_dataset, open_folder

MANY = 10_000
OPEN_SECONDS = 3.0
TURN_SECONDS = 0.5
BROWSER_MB = 500
TURN = """button => new Promise(done => {
    const begun = performance.now();
    const seen = (_, observer) => {
        observer.disconnect();
        requestAnimationFrame(() => done(performance.now() - begun));
    };
    new MutationObserver(seen).observe(document.querySelector("#dataset-grid .ds-grid"), { childList: true });
    button.click();
})"""
"""Milliseconds from the click until the new cards are on the page."""


def grid(page: Page) -> Locator:
    return page.locator("#dataset-grid")


def names(page: Page) -> list[str]:
    return [str(card.get_attribute("data-name")) for card in cards(page).all()]


def choose(page: Page, label: str, value: str) -> None:
    grid(page).get_by_label(label, exact=True).select_option(value)


def make_shapes(app: App) -> Path:
    """30 pictures: portraits in a subfolder, the others landscape; the last without a caption."""
    folder = app.workspace / "datasets" / "shapes"
    for number in range(30):
        portrait = number % 3 == 0
        path = folder / ("tall" if portrait else ".") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (320, 640) if portrait else (640, 320), "teal").save(path)
        if number < 29:
            path.with_suffix(".txt").write_text(f"number {number}, {'even' if number % 2 == 0 else 'odd'}, picture")
    mask = folder / ".atelier" / "masks" / "01.png"
    mask.parent.mkdir(parents=True)
    Image.new("L", (640, 320)).save(mask)
    return folder


def test_filters(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    open_folder(page, make_shapes(app))
    expect(grid(page).get_by_label("Bucket", exact=True)).to_be_hidden()
    grid(page).get_by_role("button", name="More filters").click()
    expect(grid(page).locator("option", has_text="320 × 640 (10)")).to_have_count(1)
    choose(page, "Bucket", "320x640")
    expect(cards(page)).to_have_count(10)
    page.locator("#dataset-resolution input").fill("256")
    page.locator("#dataset-resolution input").press("Enter")
    expect(grid(page).locator(".ds-nothing")).to_be_visible()
    grid(page).locator(".ds-filters").get_by_role("button", name="Bucket").click()
    expect(cards(page)).to_have_count(30)

    choose(page, "Subfolder", "tall")
    expect(cards(page)).to_have_count(10)
    choose(page, "Subfolder", "")
    choose(page, "Mask", "with")
    expect(cards(page)).to_have_count(1)
    choose(page, "Mask", "")
    cards(page).nth(0).click()
    for tag in ("picture", "odd"):
        grid(page).locator(".ds-edit-chip", has_text=tag).first.press("Space")
        expect(grid(page).locator(".ds-filters .ds-chip", has_text=f"Tag: {tag}")).to_be_visible()
    page.keyboard.press("Escape")
    expect(cards(page)).to_have_count(14)
    choose(page, "With the tags", "none")
    expect(cards(page)).to_have_count(1)
    choose(page, "With the tags", "any")
    choose(page, "Shape", "portrait")
    expect(cards(page)).to_have_count(10)
    choose(page, "Order", "newest")
    choose(page, "On a page", "24")
    expect(cards(page).first).to_have_attribute("data-name", "tall/27.png")
    expect(grid(page).locator(".ds-filters .ds-chip")).to_have_count(3)
    shot("dataset-filters")
    grid(page).get_by_role("button", name="Clear all filters").click()
    expect(grid(page).locator(".ds-pager")).to_contain_text("1 to 24 of 30")
    expect(grid(page).locator(".ds-filters")).to_be_hidden()


def test_selecting_over_pages(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = make_dataset(app, "selecting", 100)
    open_folder(page, folder)
    ticked, hidden = grid(page).locator(".ds-ticked"), grid(page).locator(".ds-hidden-ticks")
    expect(ticked).to_have_text("None selected")
    cards(page).nth(40).click(modifiers=["Control"])
    grid(page).get_by_role("button", name="Next page").click()
    expect(cards(page).first).to_have_attribute("data-name", "0048.png")
    cards(page).nth(2).click(modifiers=["Shift"])
    expect(ticked).to_have_text("11 selected")
    page.keyboard.press("Control+i")
    expect(ticked).to_have_text("89 selected")
    page.keyboard.press("Control+i")
    expect(ticked).to_have_text("11 selected")

    grid(page).get_by_label("Search").fill("red")
    expect(cards(page)).to_have_count(25)
    expect(hidden).to_have_text("8 of them hidden by the filter")
    expect(cards(page).and_(page.locator("[aria-selected=true]"))).to_have_count(3)
    cards(page).first.focus()
    page.keyboard.press("Control+a")
    expect(ticked).to_have_text("33 selected")
    shot("dataset-selection")
    grid(page).get_by_label("Search").fill("")
    expect(cards(page)).to_have_count(48)
    expect(hidden).to_be_hidden()
    cards(page).first.focus()
    page.keyboard.press("Control+a")
    expect(ticked).to_have_text("63 selected")
    page.keyboard.press("Control+a")
    expect(ticked).to_have_text("100 selected")

    (folder / "0001.png").unlink()
    page.keyboard.press("PageDown")
    expect(ticked).to_have_text("99 selected")
    expect(cards(page).first).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    expect(ticked).to_have_text("99 selected")
    cards(page).first.focus()
    page.keyboard.press("Escape")
    expect(ticked).to_have_text("None selected")


def test_other_programs_changes_and_a_narrow_window(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = make_dataset(app, "watched", 3)
    (folder / "broken.png").write_bytes(b"broken")
    open_folder(page, folder)
    expect(grid(page).locator(".ds-counts")).to_have_text("4 pictures, 1 without a caption")
    expect(cards(page).last).to_contain_text("cannot be shown")
    with (folder / "0000.txt").open("r+") as file:  # in place: its folder does not tell
        file.write("A RED")
    Image.new("RGB", (20, 20)).save(folder / "new.png")
    choose(page, "Show", "uncaptioned")
    expect(cards(page)).to_have_count(2)
    choose(page, "Show", "all")
    expect(cards(page)).to_have_count(5)
    expect(cards(page).first).to_contain_text("A RED")
    page.set_viewport_size({"width": 390, "height": 844})
    grid(page).get_by_role("button", name="More filters").click()
    expect_to_fit(page)
    shot("dataset-narrow")
    page.set_viewport_size({"width": 1440, "height": 1000})


def make_many(app: App) -> Path:
    """Links to a few tiny pictures: made in a second or two, and as many files as any."""
    seeds = []
    for number, size in enumerate([(64, 64), (96, 64), (64, 96)]):
        seeds.append(app.workspace / f"seed{number}.png")
        Image.new("RGB", size, (90 * number, 80, 120)).save(seeds[-1])
    folder = app.workspace / "datasets" / "many"
    folder.mkdir(parents=True)
    for number in range(MANY):
        os.link(seeds[number % 3], folder / f"{number:05}.png")
        tags = ", ".join(f"tag {(number * step) % 331}" for step in range(1, 10))
        (folder / f"{number:05}.txt").write_text(f"{tags}, number {number}")
    return folder


def opened_in(page: Page, folder: Path) -> float:
    """Seconds from the button to the first page of pictures."""
    field(page, "dataset-path").fill(str(folder))
    return float(page.evaluate(TURN, page.locator("#dataset-open").element_handle())) / 1000


@pytest.mark.skipif(not MEASURES, reason="measures: set LORA_ATELIER_MEASURE on an idle machine")
def test_ten_thousand_pictures(app: App, page: Page) -> None:
    """The limits are those of an idle machine; medians, since others may be at work."""
    folder, small = make_many(app), make_dataset(app, "small", 2)
    first_scan = opened_in(page, folder)
    expect(cards(page)).to_have_count(48)
    index = app.workspace / "cache" / "picture-sizes"
    eventually(lambda: any(len(json.loads(file.read_text())["pictures"]) == MANY for file in index.glob("*.json")), 120)
    open_folder(page, small)
    app.restart()
    page.goto(app.url)
    wait_until_open(page)
    expect(cards(page)).to_have_count(2)
    opening = [opened_in(page, folder)]
    for _ in range(2):
        open_folder(page, small)
        opening.append(opened_in(page, folder))

    forth = grid(page).get_by_role("button", name="Next page").element_handle()
    turning = [float(page.evaluate(TURN, forth)) / 1000 for _ in range(9)]
    grid(page).get_by_role("button", name=f"Select all {MANY}").click()
    expect(grid(page).locator(".ds-ticked")).to_have_text(f"{MANY} selected")
    with_all = [float(page.evaluate(TURN, forth)) / 1000 for _ in range(3)]
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    heap_mb, renderer_mb = metrics["JSHeapUsedSize"] / 1e6, renderer_bytes() / 1e6
    figures = (
        f"{MANY} pictures: first scan {first_scan:.2f} s; opened in {_seconds(opening)}; page turned in "
        f"{_seconds(turning)}, all selected {_seconds(with_all)}; heap {heap_mb:.0f} MB, renderer {renderer_mb:.0f} MB"
    )
    logging.getLogger("tests").warning(figures)
    assert statistics.median(opening) < OPEN_SECONDS
    assert statistics.median(turning) < TURN_SECONDS
    assert heap_mb < BROWSER_MB
    assert renderer_mb < BROWSER_MB


def renderer_bytes() -> int:
    """Memory of the largest process that shows a page, with its share of what all of the browser's processes share."""
    sizes = [0]
    for process in psutil.Process().children(recursive=True):
        try:
            if "--type=renderer" in process.cmdline():
                sizes.append(process.memory_full_info().pss)
        except psutil.NoSuchProcess:
            continue
    return max(sizes)


def _seconds(measured: list[float]) -> str:
    return f"{statistics.median(measured):.2f} s ({min(measured):.2f} to {max(measured):.2f})"
