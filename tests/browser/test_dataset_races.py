"""The Dataset tab where answers are late: other datasets, filters and pictures are looked at by then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App, toast
from tests.browser.held_events import event, held
from tests.browser.test_dataset_editor import make_folder, on_stage, painted_on
from tests.browser.test_dataset_edits import choose
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


def search(page: Page) -> Locator:
    return page.locator("#dataset-grid").get_by_label("Search")


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


def test_an_edit_of_what_is_shown_goes_by_the_filter_just_chosen(app: App, page: Page) -> None:
    folder = make_dataset(app, "filtered", 4)
    before = text_of(folder, 0)
    open_folder(page, folder)
    unfold(page, "dataset-edits")
    choose(page, "edit-scope", "Pictures shown by the filter")
    field(page, "field-edit-replace-find").fill("picture")
    field(page, "field-edit-replace-replacement").fill("square")
    with held(page, event("query")):
        search(page).fill("green")
        page.locator("#edit-apply").click()
    eventually(lambda: text_of(folder, 1) == "a green square, number 1\n")
    expect(cards(page)).to_have_count(1)
    assert text_of(folder, 0) == before


def test_what_was_not_saved_is_told_wherever_one_is_by_then(app: App, page: Page) -> None:
    folder = make_dataset(app, "clashing", 3)
    open_folder(page, folder)
    cards(page).nth(0).click()
    (folder / "0000.txt").write_text("theirs", encoding="utf-8")
    caption_box(page).fill("typed in vain")
    with held(page, event("before")):
        page.locator("#dataset-grid").get_by_role("button", name="Next ›", exact=True).click()
        expect(caption_box(page)).to_have_value("a green picture, number 1")
    expect(toast(page, "0000.png was changed elsewhere")).to_contain_text("typed in vain")
    assert text_of(folder, 0) == "theirs"

    caption_box(page).fill("a picture, saved late")
    with held(page, event("before")):
        caption_box(page).press("Control+Enter")
        search(page).fill("picture")
        expect(cards(page)).to_have_count(2)
    expect(state(page)).to_have_text("Saved")
    assert text_of(folder, 1) == "a picture, saved late\n"
