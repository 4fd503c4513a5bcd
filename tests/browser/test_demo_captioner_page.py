"""The built-in captioner on the page: a newcomer captions pictures without a network."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import App
from tests.browser.test_dataset_tab import cards, open_folder, unfold
from trainer.demo import world
from trainer.demo.world import Scene

SCENES = (Scene("blue", "red", "circle", "big"), Scene("yellow", "green", "star", ""))


def test_pictures_of_the_demo_are_captioned_offline(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = app.workspace / "datasets" / "shapes"
    folder.mkdir(parents=True)
    for number, scene in enumerate(SCENES):
        world.draw(scene, random.Random(number)).save(folder / f"{number}.png")
    open_folder(page, folder)
    unfold(page, "dataset-captions")
    page.locator("#captioner input").click()
    page.get_by_role("option", name="Demo captioner (tiny, built in)").click()
    expect(page.locator("#captioner")).to_contain_text("no download")
    shot("dataset-demo-captioner")
    page.locator("#captioner-start").click()
    expect(page.locator("#dataset-job")).to_contain_text("2 captions written", timeout=180_000)
    for scene in SCENES:
        expect(cards(page).filter(has_text=world.caption(scene))).to_have_count(1)
    shot("dataset-demo-captioned")
    page.set_viewport_size({"width": 390, "height": 844})
    shot("dataset-demo-captioner-390")
