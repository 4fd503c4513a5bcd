"""The form's help in a real browser: search by keys, what has no effect, what differs from a preset, own presets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App, dismiss, toast, wait_until_open
from tests.browser.test_train_tab import field, use_text


@pytest.fixture(autouse=True)
def train_tab(page: Page) -> None:
    open_train(page)


def open_train(page: Page) -> None:
    wait_until_open(page)
    page.get_by_role("tab", name="Train", exact=True).click()
    field(page, "train.seed").wait_for()
    expect(page.locator("#changes")).to_contain_text("differ")  # the marks are there


def mark(page: Page, name: str) -> Locator:
    return page.locator(f"#field-{name.replace('.', '-')} .field-mark")


def choose(page: Page, label: str) -> None:
    page.locator("#preset input").click()
    page.get_by_role("option", name=label, exact=True).click()


def test_search_by_keys_finds_what_is_folded_and_says_why_it_has_no_effect(page: Page) -> None:
    use_text(page, "train: {epochs: 3}")
    expect(mark(page, "train.max_steps")).to_have_count(1)
    expect(field(page, "train.max_steps")).to_be_hidden()
    expect(field(page, "train.lr_power")).to_be_hidden()
    page.locator("body").press("/")
    search = page.get_by_role("searchbox", name="Search settings")
    expect(search).to_be_focused()
    page.keyboard.type("--lr_scheduler_power=2")
    expect(page.locator("#field-search-count")).to_have_text("1 setting")
    expect(mark(page, "train.lr_power")).to_have_text(
        "No effect while Learning rate schedule is cosine, not polynomial."
    )
    expect(page.locator("#field-train-lr_power .found-as")).to_have_text("Also called lr_scheduler_power")
    page.keyboard.press("Enter")
    expect(field(page, "train.lr_power")).to_be_focused()
    search.fill("num_repeats")
    expect(field(page, "dataset.sources.0.repeats")).to_be_visible()
    search.fill("nothing at all")
    expect(page.locator("#field-search-count")).to_have_text("No setting is called so")
    search.press("Escape")
    expect(search).to_have_value("")
    expect(field(page, "train.clip_skip")).to_be_hidden()
    page.get_by_role("checkbox", name="All settings").check()
    expect(field(page, "train.clip_skip")).to_be_visible()
    page.reload()
    open_train(page)
    expect(field(page, "train.clip_skip")).to_be_visible()
    page.get_by_role("checkbox", name="All settings").uncheck()


def test_what_differs_from_the_preset_is_marked_and_goes_back(page: Page) -> None:
    use_text(page, "{name: mine, train: {seed: 9}}")
    expect(field(page, "train.seed")).to_have_value("9")
    choose(page, "SD 1.5 style, 8 GB")
    expect(page.locator("#changes")).to_contain_text("No settings differ from SD 1.5 style, 8 GB.")
    expect(field(page, "lora.rank")).to_have_value("32")  # has come, and undoes nothing later
    field(page, "lora.rank").fill("7")
    expect(page.locator("#changes")).to_contain_text("1 setting differs")
    field(page, "train.batch_size").fill("x")
    expect(page.locator("#changes")).to_contain_text("2 settings differ")
    expect(mark(page, "lora.rank")).to_contain_text("Back to 32")
    page.locator("#changes summary").click()
    expect(page.locator("#changes li")).to_have_count(2)
    mark(page, "lora.rank").get_by_role("button").click()
    expect(field(page, "lora.rank")).to_have_value("32")
    expect(field(page, "train.batch_size")).to_have_value("x")  # right or wrong, the rest stays
    expect(mark(page, "lora.rank")).to_have_count(0)
    page.get_by_role("button", name="All back").click()
    expect(page.locator("#changes")).to_contain_text("No settings differ")
    expect(field(page, "train.batch_size")).not_to_have_value("x")
    use_text(page, "train: {seed: 5}\nlora:\n  rank: lots", taken=False)
    expect(page.locator("#field-lora-rank .field-problem")).to_contain_text("It is in line 3.")
    use_text(page, "train: {seed: 5}")
    expect(page.locator("#changes")).to_contain_text(re.compile(r"\d+ settings differ from SD 1.5 style"))
    page.get_by_role("button", name="Bring back the settings from before").click()
    expect(field(page, "train.seed")).to_have_value("42")
    expect(page.locator("#changes")).to_contain_text("No settings differ")


def test_a_preset_is_used_when_it_is_chosen_and_not_when_its_field_is_passed(page: Page) -> None:
    preset = page.locator("#preset input")
    choose(page, "SD 1.5 style, 8 GB")
    expect(field(page, "lora.rank")).to_have_value("32")
    field(page, "lora.rank").fill("7")
    expect(page.locator("#changes")).to_contain_text("1 setting differs")
    preset.focus()
    preset.press("Escape")
    preset.press("Tab")
    field(page, "train.seed").fill("3")
    expect(page.locator("#changes")).to_contain_text("2 settings differ from SD 1.5 style, 8 GB")
    expect(field(page, "lora.rank")).to_have_value("7")
    choose(page, "SD 1.5 style, 8 GB")  # once more: everything as it has it
    expect(page.locator("#changes")).to_contain_text("No settings differ")
    expect(field(page, "lora.rank")).to_have_value("32")
    preset.focus()
    preset.press("ArrowDown")
    preset.press("Enter")
    expect(page.locator("#changes")).not_to_contain_text("from SD 1.5 style, 8 GB")
    page.get_by_role("button", name="Bring back the settings from before").click()
    expect(page.locator("#changes")).to_contain_text("from SD 1.5 style, 8 GB")
    expect(preset).to_have_value("SD 1.5 style, 8 GB")
    expect(field(page, "lora.rank")).to_have_value("32")


def test_a_preset_that_cannot_be_used_is_told_and_can_be_chosen_again(page: Page, app: App) -> None:
    own = app.workspace / "presets" / "mended.yaml"
    own.parent.mkdir(exist_ok=True)
    own.write_text("lora: {rank: 9}\n")
    page.reload()
    open_train(page)
    choose(page, "SD 1.5 style, 8 GB")
    expect(field(page, "lora.rank")).to_have_value("32")
    own.write_text("lora: [")
    choose(page, "My own: mended")
    dismiss(page, "mended.yaml")
    expect(page.locator("#preset input")).to_have_value("SD 1.5 style, 8 GB")
    expect(field(page, "lora.rank")).to_have_value("32")
    own.write_text("lora: {rank: 9}\n")
    choose(page, "My own: mended")
    expect(field(page, "lora.rank")).to_have_value("9")
    own.unlink()


def test_own_presets_are_kept_replaced_renamed_deleted_and_shared(page: Page, app: App, tmp_path: Path) -> None:
    about, name = page.locator("#preset-about"), page.locator("#preset-name input, #preset-name textarea").first
    use_text(page, "lora: {rank: 5}")
    expect(field(page, "lora.rank")).to_have_value("5")
    name.fill("first")
    page.locator("#save-preset").click()
    expect(about).to_contain_text("Saved as first.")
    field(page, "lora.rank").fill("6")
    expect(page.locator("#changes")).to_contain_text("1 setting differs from My own: first.")
    page.locator("#save-preset").click()
    expect(about).to_contain_text("You have a preset first already.")
    file = app.workspace / "presets" / "first.yaml"
    assert "rank: 5" in file.read_text()
    page.locator("#replace-preset").click()
    expect(about).to_contain_text("Saved as first.")
    assert "rank: 6" in file.read_text()
    with page.expect_download() as download:
        about.get_by_role("link", name="Download").click()
    shared = tmp_path / "From <afar>.yaml"
    shared.write_text(download.value.path().read_text() + "old_setting: 1\n")
    name.fill("second")
    page.locator("#rename-preset").click()
    expect(about).to_contain_text("Renamed to second.")
    page.locator("#delete-preset").click()
    expect(about).to_contain_text("Deleted second.")
    assert not list((app.workspace / "presets").glob("*.yaml"))
    page.locator("#undelete-preset").click()
    expect(about).to_contain_text("second is back in the list.")
    with page.expect_file_chooser() as chooser:
        page.locator("#import-preset").click()
    chooser.value.set_files(shared)
    expect(toast(page, "old_setting is not a setting")).to_be_visible()
    (app.workspace / "presets" / "second.yaml").write_text("lora: {rank: 8, rnak: 1}\n")
    choose(page, "My own: second")
    expect(field(page, "lora.rank")).to_have_value("8")
    expect(about).to_contain_text("Did you mean lora.rank?")
