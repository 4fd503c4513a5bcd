"""The Dataset tab where answers are late: other datasets, filters and pictures are looked at by then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import App
from tests.browser.test_dataset_editor import make_folder, on_stage, painted_on
from tests.browser.test_dataset_tab import (
    caption_box,
    cards,
    eventually,
    field,
    make_dataset,
    open_folder,
    state,
    text_of,
    unfold,
)
from tests.unit.dataset_samples import noise_picture

EVENTS = "**/gradio_api/queue/join*"


@contextlib.contextmanager
def held(page: Page, text: str) -> Iterator[None]:
    """Keep events that hold this text from the server until the end, and let at least one come by then."""
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        if text in (route.request.post_data or ""):
            waiting.append(route)
        else:
            route.continue_()

    page.route(EVENTS, hold)
    yield
    while not waiting:
        page.wait_for_timeout(50)
    for route in waiting:
        route.continue_()
    page.unroute(EVENTS)


def event(name: str) -> str:
    """Which events have this sent along, by its name."""
    return f'"{name}":'


def title(page: Page) -> str:
    return page.locator("#dataset-grid .ds-title").inner_text()


def test_a_late_answer_about_a_dataset_leaves_the_next_one_open(app: App, page: Page) -> None:
    first, second = make_dataset(app, "first"), make_dataset(app, "second", 2)
    open_folder(page, first)
    cards(page).nth(0).click()
    caption_box(page).fill("typed")
    with held(page, event("before")):
        caption_box(page).press("Control+Enter")
        expect(state(page)).to_have_text("Saving …")
        open_folder(page, second)
    eventually(lambda: text_of(first, 0) == "typed\n")
    page.wait_for_timeout(1500)
    assert title(page) == "datasets / second"
    expect(cards(page)).to_have_count(2)
    expect(page.locator("#dataset-choice input")).to_have_value("second")
    expect(page.locator("#dataset-undo")).to_be_disabled()
    page.locator("#dataset-train").click()
    expect(field(page, "field-dataset-sources-0-path")).to_have_value(str(second))


def test_what_is_typed_while_another_dataset_opens_stays_in_its_own(app: App, page: Page) -> None:
    first, second = make_dataset(app, "typed-here"), make_dataset(app, "same-names", 2)
    open_folder(page, first)
    cards(page).nth(0).click()
    before = text_of(second, 0)
    field(page, "dataset-path").fill(str(second))
    with held(page, str(second)):
        page.locator("#dataset-open").click()
        caption_box(page).fill("typed meanwhile")
    eventually(lambda: text_of(first, 0) == "typed meanwhile\n")
    expect(page.locator("#dataset-grid .ds-title")).to_have_text("datasets / same-names")
    assert text_of(second, 0) == before


def test_a_double_click_crops_once(app: App, page: Page) -> None:
    folder = make_folder(app, "cropped-once", "a cat", size=(200, 100))
    noise_picture(200, 100).save(folder / "0.png")
    picture = np.asarray(Image.open(folder / "0.png"))
    open_folder(page, folder)
    cards(page).nth(0).click()
    stage = on_stage(page, "Crop")
    painted_on(page, (0.25, 0.2), (0.75, 0.8))
    expect(stage).to_contain_text("100 × 60 px at 50, 20")
    stage.get_by_role("button", name="Crop the picture now").dblclick()
    expect(stage).to_be_hidden()
    expect(page.locator("#dataset-grid .ds-file")).to_contain_text("100 × 60 px")
    page.wait_for_timeout(1500)
    assert size_of(folder / "0.png") == (100, 60)
    assert (np.asarray(Image.open(folder / "0.png")) == picture[20:80, 50:150]).all()


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_a_double_click_edits_once(app: App, page: Page) -> None:
    folder = make_dataset(app, "edited-once", 2)
    before = text_of(folder, 0)
    open_folder(page, folder)
    unfold(page, "dataset-edits")
    field(page, "field-edit-replace-find").fill("a")
    field(page, "field-edit-replace-replacement").fill("aa")
    page.locator("#edit-apply").dblclick()
    expect(page.locator("#dataset-last")).to_contain_text("Last change")
    page.wait_for_timeout(1500)
    assert text_of(folder, 0) == before.replace("a", "aa")
