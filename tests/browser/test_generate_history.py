"""The pictures of the Generate tab in a real browser: search, favourites, viewer, selection, the bin and back."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App
from tests.browser.example_runs import open_tab
from tests.browser.test_accessibility_open import findings, findings_on_a_phone
from tests.browser.test_dataset_tab import HOSTILE, eventually
from trainer.pictures import save_png

PICTURES = 65
PER_PAGE = 60


@pytest.fixture(scope="module")
def pictures(app: App) -> Path:
    """The newest has the highest number; of every five one is of a star."""
    folder = app.workspace / "pictures"
    for number in range(1, PICTURES + 1):
        path = folder / f"{number:05d}-s{number}.png"
        prompt = "a star" if number % 5 == 0 else HOSTILE
        settings = {"prompt": prompt, "seed": number, "steps": 9, "width": 64, "height": 64, "weighted": True}
        save_png(Image.new("RGB", (16, 12), (number * 3, 90, 120)), path, settings)
        os.utime(path, (10**9 + number, 10**9 + number))
    return folder


def wall(page: Page) -> Locator:
    return page.locator("#generate-history .card")


def names(page: Page) -> list[int]:
    return [int(str(node.get_attribute("data-name"))[:5]) for node in wall(page).all()]


def test_pages_search_viewer_favourites_and_the_way_back(
    app: App, page: Page, pictures: Path, shot: Callable[[str], Path]
) -> None:
    page.emulate_media(reduced_motion="reduce")
    open_tab(page, "Generate")
    expect(wall(page)).to_have_count(PER_PAGE)
    assert names(page)[:2] == [65, 64]
    history = page.locator("#generate-history")
    history.get_by_role("button", name="Older").click()
    expect(wall(page)).to_have_count(PICTURES - PER_PAGE)
    history.get_by_role("button", name="Newer").click()
    expect(wall(page)).to_have_count(PER_PAGE)

    history.get_by_role("searchbox").fill("star")
    expect(wall(page)).to_have_count(13)
    wall(page).first.locator(".open").click()
    dialog = page.locator("dialog[open]")
    expect(dialog.locator(".words")).to_have_text("a star")
    page.keyboard.press("ArrowRight")
    expect(dialog.locator(".facts")).to_contain_text("Seed60")
    page.keyboard.press("f")
    expect(dialog.get_by_role("button", name="★ Favourite")).to_be_visible()
    shot("generate-viewer")
    assert findings(page) == []
    page.keyboard.press("Delete")
    eventually(lambda: not (pictures / "00060-s60.png").exists())
    expect(dialog.locator(".facts")).to_contain_text("Seed55")
    page.keyboard.press("Escape")
    expect(wall(page)).to_have_count(12)
    expect(page.locator("#generate-bin summary")).to_contain_text("Bin: 1 thing")
    history.get_by_role("button", name="Undo").click()
    expect(wall(page)).to_have_count(13)

    history.get_by_role("searchbox").fill("")
    history.get_by_label("Favourites (1)").check()
    expect(wall(page)).to_have_count(1)
    assert names(page) == [60]
    page.reload()
    open_tab(page, "Generate")
    expect(page.locator("#generate-history .card.starred")).to_have_count(1)
    assert page.evaluate("window.hacked") is None
    found = findings(page) + findings_on_a_phone(page)
    shot("generate-history-phone")
    assert found == [], "\n".join(found)


def test_several_are_selected_downloaded_and_deleted(page: Page, pictures: Path, tmp_path: Path) -> None:
    open_tab(page, "Generate")
    expect(wall(page)).to_have_count(PER_PAGE)
    wall(page).nth(0).locator(".open").click(modifiers=["Control"])
    wall(page).nth(2).locator(".open").click(modifiers=["Shift"])
    history = page.locator("#generate-history")
    expect(history.locator(".chosen strong")).to_have_text("3 selected")
    with page.expect_download() as download:
        history.get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "some.zip")
    expected = [f"{number:05d}-s{number}.png" for number in (63, 64, 65)]
    assert sorted(zipfile.ZipFile(tmp_path / "some.zip").namelist()) == expected

    wall(page).nth(0).locator(".open").focus()
    page.keyboard.press("Delete")  # all that are selected, as this one is
    eventually(lambda: not any((pictures / name).exists() for name in expected))
    expect(history.locator(".chosen strong")).to_be_hidden()
    page.locator("#generate-bin summary").click()
    page.locator("#generate-bin").get_by_role("button", name="Restore").click()
    eventually(lambda: all((pictures / name).exists() for name in expected))
    expect(page.locator("#generate-bin summary")).to_have_count(0)
    expect(wall(page).first).to_have_attribute("data-name", expected[-1])

    page.keyboard.press("Escape")
    wall(page).nth(1).locator(".open").click()
    page.locator("dialog[open]").get_by_role("button", name="Use these settings").click()
    expect(page.locator("#generate-seed input")).to_have_value("64")
    expect(page.locator("#generate-steps input[type=number]")).to_have_value("9")
