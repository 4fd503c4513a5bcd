"""The Dataset tab on real files: every edit is checked in the caption files themselves."""

from __future__ import annotations

import re
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App, dismiss, toast

COLOURS = ("red", "green", "blue", "yellow")
HOSTILE = (
    '<img src=x onerror="window.hacked=1"> ${window.hacked=2} {{window.hacked}} `x` <script>window.hacked=3</script>'
)


def make_dataset(app: App, name: str, count: int = 6) -> Path:
    """Pictures of plain colours with captions such as "a red picture, number 0"."""
    folder = app.workspace / "datasets" / name
    folder.mkdir(parents=True)
    for number in range(count):
        colour = COLOURS[number % 4]
        Image.new("RGB", (40, 30), colour).save(folder / f"{number:04}.png")
        (folder / f"{number:04}.txt").write_text(f"a {colour} picture, number {number}\n", encoding="utf-8")
    return folder


def text_of(folder: Path, number: int) -> str:
    return (folder / f"{number:04}.txt").read_text(encoding="utf-8")


def eventually(check: Callable[[], object], seconds: float = 60) -> None:
    """Wait until ``check()`` is true."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def open_folder(page: Page, folder: Path) -> None:
    field(page, "dataset-path").fill(str(folder))
    page.locator("#dataset-open").click()
    expect(page.locator("#dataset-grid .ds-title")).to_have_text(f"datasets / {folder.name}")
    cards(page).first.wait_for()


def cards(page: Page) -> Locator:
    return page.locator("#dataset-grid .ds-card")


def field(page: Page, name: str) -> Locator:
    return page.locator(f"#{name} textarea, #{name} input").first


def unfold(page: Page, name: str) -> None:
    page.locator(f"#{name} .label-wrap").click()


def caption_box(page: Page) -> Locator:
    return page.locator("#dataset-caption")


def state(page: Page) -> Locator:
    return page.locator("#dataset-grid .ds-state")


def test_editing_a_caption_keeps_every_line(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = make_dataset(app, "editing")
    open_folder(page, folder)
    expect(page.locator("#dataset-grid .ds-counts")).to_have_text("6 pictures, all with a caption")
    cards(page).nth(1).click()
    expect(caption_box(page)).to_have_value("a green picture, number 1")
    caption_box(page).fill("first line\n\nthird line, größe")
    caption_box(page).press("Control+Enter")
    expect(state(page)).to_have_text("Saved")
    assert text_of(folder, 1) == "first line\n\nthird line, größe\n"
    expect(cards(page).nth(1)).to_contain_text("third line")

    caption_box(page).fill("left by a click")
    page.locator("#dataset-grid").get_by_role("button", name="Next ›", exact=True).click()
    expect(caption_box(page)).to_have_value("a blue picture, number 2")
    eventually(lambda: text_of(folder, 1) == "left by a click\n")
    shot("dataset-editor")

    page.locator("#dataset-undo").click()
    eventually(lambda: text_of(folder, 1) == "first line\n\nthird line, größe\n")
    page.locator("#dataset-undo").click()
    eventually(lambda: text_of(folder, 1) == "a green picture, number 1\n")


def test_a_caption_changed_elsewhere_is_not_lost(app: App, page: Page) -> None:
    folder = make_dataset(app, "two-windows")
    open_folder(page, folder)
    cards(page).nth(0).click()
    caption_box(page).fill("mine")
    (folder / "0000.txt").write_text("theirs", encoding="utf-8")
    caption_box(page).press("Control+Enter")
    clash = page.locator("#dataset-grid .ds-clash")
    expect(clash).to_contain_text("theirs")
    assert text_of(folder, 0) == "theirs"
    clash.get_by_role("button", name="Keep mine").click()
    eventually(lambda: text_of(folder, 0) == "mine")


def test_hostile_names_and_captions_are_only_text(app: App, page: Page) -> None:
    folder = make_dataset(app, "hostile <b>${1+1}", 1)
    Image.new("RGB", (30, 30)).save(folder / "${window.hacked=4} <i>x.png")
    (folder / "0000.txt").write_text(HOSTILE, encoding="utf-8")
    open_folder(page, folder)
    expect(cards(page).nth(1).locator(".ds-text")).to_have_text(HOSTILE)
    cards(page).nth(0).click()
    expect(page.locator("#dataset-grid .ds-file strong")).to_have_text("${window.hacked=4} <i>x.png")
    unfold(page, "dataset-edits")
    field(page, "field-edit-replace-find").fill("script")
    field(page, "field-edit-replace-replacement").fill("${window.hacked=5}")
    page.locator("#edit-preview").click()
    expect(page.locator("#edit-result dd").last).to_contain_text("<${window.hacked=5}>window.hacked=3")
    page.locator("#edit-apply").click()
    eventually(lambda: "hacked=5" in text_of(folder, 0))
    expect(page.locator("#dataset-last")).to_contain_text("Last change: replace script")
    unfold(page, "dataset-past")
    expect(page.locator("#dataset-history li").first).to_contain_text("replace script")
    unfold(page, "dataset-tag-table")
    expect(page.locator("#dataset-tags .tag").first).to_contain_text("<img src=x")
    unfold(page, "dataset-check")
    page.locator("#check-start").click()
    page.locator("#dataset-findings li").first.wait_for()
    expect(page.locator("#dataset-findings")).to_contain_text("No caption.")
    assert page.evaluate("window.hacked") is None
    assert page.locator("#tab-dataset img[src='x'], [role=tabpanel] img[src='x']").count() == 0


def test_the_check_finds_and_shows_pictures(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = make_dataset(app, "checked", 4)
    (folder / "broken.png").write_bytes(b"not a picture")
    shutil.copy(folder / "0000.png", folder / "twin.png")
    open_folder(page, folder)
    page.locator("#dataset-resolution input").fill("64")
    unfold(page, "dataset-check")
    page.locator("#check-start").click()
    broken = page.locator("#dataset-findings li").filter(has_text="Cannot be used")
    broken.wait_for()
    expect(page.locator("#dataset-findings")).to_contain_text("The same file 2 times: 0000.png, twin.png")
    shot("dataset-findings")
    broken.get_by_role("button", name="Show 1").click()
    expect(cards(page)).to_have_count(1)
    expect(cards(page)).to_have_attribute("data-name", "broken.png")
    expect(cards(page)).to_contain_text("cannot be shown")


def test_adding_a_zip(app: App, page: Page, tmp_path: Path) -> None:
    source = make_dataset(app, "source", 2)
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as archive:
        archive.write(source / "0000.png", "inner/0000.png")
        archive.write(source / "0000.txt", "inner/0000.txt")
        archive.write(source / "0001.png", "../../evil.png")
    unfold(page, "dataset-upload")
    page.locator("#dataset-files input[type=file]").set_input_files(tmp_path / "up.zip")
    expect(page.locator("#dataset-files")).to_contain_text(re.compile(r"up\s*\.zip"))  # in one piece while it comes
    field(page, "dataset-name").fill("added")
    page.locator("#dataset-add").click()
    expect(page.locator("#dataset-grid .ds-title")).to_have_text("datasets / added")
    expect(cards(page)).to_have_count(1)
    expect(toast(page, "evil.png")).to_be_visible()
    assert text_of(app.workspace / "datasets" / "added" / "inner", 0) == "a red picture, number 0\n"
    assert not list(app.workspace.parent.rglob("evil.png"))


def test_other_folders_stay_closed(app: App, page: Page) -> None:
    open_folder(page, make_dataset(app, "stays-open"))
    expect(cards(page).first).to_be_visible()
    before = [card.get_attribute("data-name") for card in cards(page).all()]
    for path in ("/etc", "~", "../../..", f"{app.workspace}/datasets/../../.."):
        field(page, "dataset-path").fill(path)
        page.locator("#dataset-open").click()
        dismiss(page, "is not open to the page")
    assert [card.get_attribute("data-name") for card in cards(page).all()] == before


def test_a_thousand_pictures(app: App, page: Page) -> None:
    folder = make_dataset(app, "thousand", 1000)
    open_folder(page, folder)
    expect(cards(page)).to_have_count(48)
    page.locator("#dataset-grid").get_by_role("button", name="Next page").click()
    expect(cards(page).first).to_have_attribute("data-name", "0048.png")
    expect(cards(page)).to_have_count(48)
    assert cards(page).first.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 40
    page.locator("#dataset-grid").get_by_label("Search").fill("number 77")
    expect(cards(page)).to_have_count(11)


def test_train_on_these_pictures(app: App, page: Page) -> None:
    folder = make_dataset(app, "to-train")
    open_folder(page, folder)
    page.locator("#dataset-train").click()
    expect(page.locator("#field-dataset-sources-0-path textarea, #field-dataset-sources-0-path input")).to_have_value(
        str(folder)
    )
