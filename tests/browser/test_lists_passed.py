"""Lists that are opened and closed, or passed with Tab, without a choice: nothing that they stand for is done again.

Gradio's ``input`` event of a dropdown comes each time the field loses focus, and so twice at a choice.
"""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App, wait_until_open
from tests.browser.test_dataset_captions import choose
from tests.browser.test_dataset_tab import cards, field, make_dataset, open_folder, unfold


def pass_by(page: Page, name: str) -> None:
    """Open the list, close it again, and go on to the next field."""
    entry = page.locator(f"#{name} input")
    entry.focus()
    entry.press("Escape")
    entry.press("Tab")


def search(page: Page) -> Locator:
    return page.locator("#dataset-grid").get_by_label("Search")


def test_the_list_of_datasets(app: App, page: Page) -> None:
    folder, other = make_dataset(app, "passed"), make_dataset(app, "other", 2)
    wait_until_open(page)
    pass_by(page, "dataset-choice")
    open_folder(page, folder)
    expect(page.locator(".toast-body")).to_have_count(0)  # nobody asked for a folder without a name
    search(page).fill("red")
    expect(cards(page)).to_have_count(2)
    pass_by(page, "dataset-choice")
    page.wait_for_timeout(1500)
    expect(cards(page)).to_have_count(2)
    choose(page, "dataset-choice", other.name)
    expect(page.locator("#dataset-grid .ds-title")).to_have_text("datasets / other")
    expect(cards(page)).to_have_count(2)


def test_the_captioners_templates(app: App, page: Page) -> None:
    open_folder(page, make_dataset(app, "templates", 1))
    unfold(page, "dataset-captions")
    choose(page, "captioner", "Sentences: Qwen-VL")
    choose(page, "captioner-template", "Tags, for SDXL anime models")
    prompt = field(page, "field-captioner-qwen_vl-prompt")
    expect(prompt).not_to_have_value("")
    told = prompt.input_value()
    prompt.fill("Say what is red.")
    pass_by(page, "captioner-template")
    pass_by(page, "captioner")
    page.wait_for_timeout(1500)
    expect(prompt).to_have_value("Say what is red.")
    choose(page, "captioner-template", "Tags, for SDXL anime models")  # the same once more, which is a choice
    expect(prompt).to_have_value(told)


def test_how_ranks_are_chosen(page: Page) -> None:
    wait_until_open(page)
    page.get_by_role("tab", name="Merge", exact=True).click()
    page.get_by_role("tab", name="Resize", exact=True).click()
    choose(page, "resize-method", "Share of the norm (Frobenius)")
    expect(field(page, "resize-param")).to_have_value("0.9")
    field(page, "resize-param").fill("0.75")
    pass_by(page, "resize-method")
    page.wait_for_timeout(1500)
    expect(field(page, "resize-param")).to_have_value("0.75")
